"""Samples in WebDataset shards, each found by its position.

In: a setting that names tars, on disk or remote. Out: a `ShardSource`, whose samples are numbered.
Read `locating`, `tar` (members grouped to samples), `index`, `merged_index`, `shard_cache`, and
last `shard_source`.
"""
