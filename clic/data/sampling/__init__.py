"""Which samples make the batch of a step: a pure function of (seed, step).

In: sources of numbered samples. Out: a `BatchPlan` for each step. Read `sample_sources`, `order`
(the epoch's permutation), then `sampler` (the batch and the partners of its composites).
"""
