"""Weights between a base model and a model fine-tuned from it (WiSE-FT, arXiv 2109.01903).

In: two models of one architecture and alpha. Out: an open_clip folder, or the scores of a sweep.
Read `interpolation` (one tensor, and whether two models fit), `tensor_files` and `blending` (files,
piece by piece), `alpha_rules` and `folders` (whole models); then `live_model`, `search`, `choice`
and `trade_off`, which score models at many alphas and choose one; and `merging` and `soups`, for
more than two models.
CLoVe (arXiv 2402.15021, section 3.3) patches its models with alpha = 0.6.
"""

from clic.patching.folders import RECORD_FILE, patch, patch_by_rules
from clic.patching.interpolation import interpolate
from clic.patching.search import Sweep, sweep
from clic.patching.soups import soup

__all__ = ["RECORD_FILE", "Sweep", "interpolate", "patch", "patch_by_rules", "soup", "sweep"]
