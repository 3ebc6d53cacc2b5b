"""Settings: what they are, where they come from, and which of them go together.

In: files of `configs/` and `key=value` words. Out: one checked dataclass for each command. Read
`train_settings` and `eval_settings` (the dataclasses), `overrides` (words and files composed by
Hydra), then `checks` and `group_checks` (ranges, choices, settings without effect).
"""
