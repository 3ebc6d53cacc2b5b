"""Samples in WebDataset shards, each found by its position.

In: a setting that names tars, on disk or remote. Out: a `ShardSource`, whose samples are numbered.
Read `shard_source` first, then what it uses: `locating` (which tars), `records` (what a sample's
texts say), `tar` (members to samples), `index` and `merged_index` (where each sample lies), and
`shard_cache` (remote shards).
"""
