"""From a plan of numbered samples to a `Batch` of tensors.

In: a `BatchPlan` and the sources. Out: `clic.types.Batch`. Read `builder` first, then `captioner`
(true and false captions), `caption_tokens`, `faults` (samples that cannot be read) and `loader`.
"""
