"""Settings: what they are, where they come from, and which of them fit together.

In: the files of `configs/` and `key=value` words. Out: one checked dataclass per command.
Read `train_settings` and `eval_settings` (the dataclasses), `overrides` (words and files, which
Hydra composes), `checks` (ranges, choices), `needless` (settings without effect), `method_checks`
(captions and losses that fit together), and last `reference` (what the help and docs/settings.md
say about each).
"""
