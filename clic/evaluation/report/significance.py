"""Which differences between models are unlikely to be chance: p-values and Holm's correction.

A p-value inverts the percentile interval (Efron and Tibshirani 1993, section 15.4): twice the share
of resamples whose difference has the other sign, or is 0. Holm, "A Simple Sequentially Rejective
Multiple Test Procedure" (Scandinavian Journal of Statistics 6, 1979), keeps the chance that any of
several true zeros is marked below the level.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from clic.evaluation.tables.table import NumberPath

ALPHA = 0.05
MARK = "*"
NOTE = (
    f"{MARK} marks p < {ALPHA} (two-sided, of the same resamples, corrected by Holm over a "
    "metric's categories; a mean, or all rows, stands for itself)."
)
"""What a mark means, for tables and figures."""


def p_values(differences: np.ndarray) -> np.ndarray:
    """Return the two-sided p-value of each difference, uncorrected.

    p = 2 min(#{d <= 0}, #{d >= 0}), each count and the number of resamples plus one, at most 1.

    Args:
        differences: float64 [R, ...], differences in R resamples; NaN if a resample has none.
    """
    drawn = np.isfinite(differences).sum(axis=0)
    below, above = (differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0)
    return np.minimum(1.0, 2 * (1 + np.minimum(below, above)) / (1 + drawn))


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the given order.

    The k-th smallest of m (from 0) becomes the largest (m - j) p_j of all j <= k, at most 1.

    Args:
        values: m p-values of one family.
    """
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values, dtype=np.float64)[order] * np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(ordered))
    return [float(value) for value in corrected]


def corrected(
    paths: Sequence[NumberPath], values: np.ndarray, alone: Collection[str]
) -> dict[NumberPath, list[float]]:
    """Return the p-values of a benchmark's numbers by number, one for each model.

    Args:
        paths: The numbers.
        values: float64 [numbers, models], uncorrected.
        alone: Names of means and of all rows together, which are not corrected. The categories of
            each metric are a family.
    """
    found = {path: [float(p) for p in values[i]] for i, path in enumerate(paths)}
    families: dict[str, list[NumberPath]] = {}
    for path in paths:
        if not (path[1] and path[0] in alone):
            families.setdefault(path[1], []).append(path)
    for family in families.values():
        for model in range(values.shape[1]):
            for path, p in zip(family, holm([found[one][model] for one in family]), strict=True):
                found[path][model] = p
    return found
