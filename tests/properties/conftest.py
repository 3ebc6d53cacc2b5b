"""Hypothesis settings: the same examples on every run, and no deadline for slow machines."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("clic", deadline=None, derandomize=True)
settings.load_profile("clic")
