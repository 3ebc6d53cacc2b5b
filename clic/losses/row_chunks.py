"""Terms of large batches, some rows at a time, so that their logits need not all be in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from clic import distributed


def by_rows(
    term: Callable[..., Tensor],
    rows: Tensor,
    *others: Any,
    first: int,
    logits: int,
    at_once: int | None,
) -> Tensor:
    """Return a term, which is a mean over rows, in chunks of rows where it has many logits.

    The mean over B rows is the mean over chunks c of rows, L = sum_c B_c / B L_c, with the
    same candidates for all. The logits of a chunk are forgotten after its forward pass and computed
    once more in the backward pass (arXiv 1604.06174): the same gradient up to the order of sums.

    Args:
        term: A term of `clic.losses.terms`: of rows, `others`, and the keyword `first`.
        rows: [B, ...], what is compared with the candidates.
        others: What else the term takes.
        first: The number of the first row among the candidates of all ranks.
        logits: Number of logits of a row.
        at_once: Logits that are in memory at once; None takes all.

    Returns:
        Scalar, the term over all B rows.
    """
    size = len(rows) if at_once is None else max(1, at_once // max(1, logits))
    if len(rows) <= size:
        return term(rows, *others, first=first)

    def in_full(chunk: Tensor, *words: Any, first: int) -> Tensor:
        with distributed.matrix_products(tf32=False):  # in the backward pass, too
            return term(chunk, *words, first=first)

    parts = []
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        mean = checkpoint(
            in_full, chunk, *others, first=first + start,
            use_reentrant=False, preserve_rng_state=False,
        )  # fmt: skip
        parts.append(mean * (len(chunk) / len(rows)))
    return torch.stack(parts).sum()
