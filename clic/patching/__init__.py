"""Weights between a base model and the one fine-tuned from it (WiSE-FT, arXiv 2109.01903).

In: two models of one architecture and alpha. Out: an open_clip folder, or the scores of a sweep.
Read `interpolation` (one tensor, and whether two models fit), then `folders` (whole models).
CLoVe (arXiv 2402.15021, section 3.3) patches its models with alpha = 0.6.
"""

from clic.patching.folders import RECORD_FILE, patch, sweep
from clic.patching.interpolation import interpolate

__all__ = ["RECORD_FILE", "interpolate", "patch", "sweep"]
