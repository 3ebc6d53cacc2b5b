"""Encodes every distinct image and text once, across benchmarks, ranks and runs.

In: a plan's tables and a model. Out: features for each table. Read `encoding`, then `image_sources`
(images are opened only when they are encoded), `distributed_encoding` and `feature_cache`.
"""
