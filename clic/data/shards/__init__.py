"""Samples in WebDataset shards, each found by its position.

In: a setting that names tars, on disk or remote. Out: a `ShardSource`, whose samples are numbered.
Read `shard_source` first, then the modules it uses: `locating` (which tars), `records` (a sample's
texts), `tar` (members to samples), `index` and `merged_index` (where each sample is), and
`shard_cache` (remote shards).
"""
