"""Batches: the samples of a plan read, decoded, captioned and tokenized.

In: sources, a sampler and the model's tokenizer and preprocessing. Out: the `Batch` of any step.
Read `loader` (one batch, and the stream of batches), `captioner` (true and false captions and their
tokens), and `faults` (samples that cannot be used).
"""
