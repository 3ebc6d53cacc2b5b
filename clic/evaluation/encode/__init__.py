"""Encodes every distinct image and text once, across benchmarks, ranks and runs.

In: a plan's tables and a model. Out: features for each table. Read `encoding`, then
`image_sources`, `distributed_encoding` and `feature_cache`.
"""
