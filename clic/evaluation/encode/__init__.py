"""Every distinct image and text goes through the model once, over benchmarks, ranks and runs.

In: a plan's tables and a model. Out: features for each table. Read `encoding`, then `image_sources`
(images that are opened late), `rank_share` and `feature_cache`.
"""
