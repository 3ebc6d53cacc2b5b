"""Reads shards from beginning to end, for data too large or too far away to be indexed.

In: addresses of tars. Out: the `Batch` of each step, as from indexed shards, but in an order that
depends on the number of ranks and workers and can be resumed only at the beginning of a shard. Read
`sample_stream` (which process reads which shard, and the shuffled stream of samples) and
`stream_builder` (batches, with partners from the shuffle buffer).
"""
