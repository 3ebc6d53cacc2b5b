"""Which samples make the batch of a step: a pure function of (seed, step).

In: sources of numbered samples whose orientations are known without decoding. Out: a `BatchPlan`
for each step and rank. Read `sample_sources`, then `sampler` (the batch, the epoch's permutation,
and the partners of composites).
"""
