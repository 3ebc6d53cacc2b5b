"""Shards that are read from beginning to end: for data too large or too far to be indexed.

In: addresses of tars. Out: the `Batch` of each step, as from indexed shards, but in an order that
depends on the number of ranks and workers and is continued at a shard's beginning only. Read
`sample_stream` (from tars to a shuffled stream of samples, in which order and for whom) and
`stream_builder` (batches, with partners from the shuffle buffer).
"""
