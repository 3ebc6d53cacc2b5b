"""From scores to right and wrong, and to recall. Ties are wrong everywhere: see `beats`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Scores compared at once by `recall`: bounds its extra memory to some tens of megabytes.
BLOCK = 1 << 22


def beats(score: Tensor, rival: Tensor) -> Tensor:
    """Return where `score` is strictly higher: a tie does not win, and a NaN on no side does.

    Every comparison of this library's benchmarks is this one. Some public code lets ties win.

    Args:
        score: Any shape that broadcasts against `rival`.
        rival: Likewise.

    Returns:
        bool, broadcast shape.
    """
    return score > rival


def triplet(
    image: Tensor | None, positive1: Tensor, positive2: Tensor, negative: Tensor
) -> dict[str, Tensor]:
    """Return the outcomes of rows of two true captions and one false one (SugarCrepe++).

    itt: image-to-text, both positives beat the negative for the image.
    tot: text only, sim(p1, p2) beats sim(p1, n) and sim(p2, n) (arXiv 2406.11171).
    p1: the first positive alone beats the negative for the image.

    Args:
        image: [N, D], unit norm, or None: only `tot` is given.
        positive1: [N, D], unit norm.
        positive2: [N, D], unit norm.
        negative: [N, D], unit norm.

    Returns:
        bool [N] by name.
    """
    alike = _cosine(positive1, positive2)
    tot = beats(alike, _cosine(positive1, negative)) & beats(alike, _cosine(positive2, negative))
    if image is None:
        return {"tot": tot}
    false = _cosine(image, negative)
    p1 = beats(_cosine(image, positive1), false)
    itt = p1 & beats(_cosine(image, positive2), false)
    return {"itt": itt, "tot": tot, "p1": p1}


def winoground(scores: Tensor) -> dict[str, Tensor]:
    """Return the outcomes of rows of two images and their two captions (arXiv 2204.03162).

    text: each image's own caption beats the other one. image: each caption's own image beats the
    other one. group: both.

    Args:
        scores: [N, 2 images, 2 captions].

    Returns:
        bool [N] by name.
    """
    own, other = scores.diagonal(dim1=1, dim2=2), scores.flip(2).diagonal(dim1=1, dim2=2)
    text = beats(own, other).all(1)
    image = beats(own, other.flip(1)).all(1)
    return {"text": text, "image": image, "group": text & image}


def classification(scores: Tensor, target: Tensor) -> Tensor:
    """Return where the target's score beats that of every other option.

    Args:
        scores: [N, C].
        target: int [N], the number of the right option.

    Returns:
        bool [N].
    """
    own = scores.gather(1, target.long().unsqueeze(1))
    # The one option that it need not beat is itself; a NaN does not beat anything.
    unbeaten = (~beats(own, scores)).sum(1)
    return (unbeaten == 1) & ~own.squeeze(1).isnan()


def recall(
    scores: Tensor, owner: Tensor | Sequence[int], ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Return recall at k, both ways, where a query is right if any match is among its top k.

    A match is among the top k if fewer than k non-matching candidates score as high as the best
    match or higher. An image that owns no caption is wrong, as is a query with a NaN match.

    Args:
        scores: [images, captions].
        owner: int [captions], the image of each caption.
        ks: Numbers of candidates looked at, each at least 1.

    Returns:
        Percentages of images (`image_to_text@k`) and of captions (`text_to_image@k`).

    Raises:
        ValueError: `owner` does not fit `scores`, there is nothing to score, or a k is below 1.
    """
    images, captions = scores.shape
    scores = scores if scores.is_floating_point() else scores.double()
    owner = torch.as_tensor(owner, device=scores.device).long()
    if not images or owner.shape != (captions,) or not captions:
        raise ValueError(f"owner {tuple(owner.shape)} does not fit scores {tuple(scores.shape)}")
    if int(owner.min()) < 0 or int(owner.max()) >= images:
        raise ValueError(f"owner names an image outside 0..{images - 1}")
    if not ks or min(ks) < 1:
        raise ValueError(f"ks={tuple(ks)} must each be at least 1")

    own = scores[owner, torch.arange(captions, device=scores.device)]
    best, valid = _best_match(own, owner, images)
    per_image, per_caption = _unbeaten(scores, best, own)
    # Among the unbeaten are the matches themselves, which are no rivals.
    matches = torch.zeros_like(per_image).index_add_(0, owner, (~beats(best[owner], own)).long())
    rivals = {
        "image_to_text": (per_image - matches, valid),
        "text_to_image": (per_caption - 1, ~own.isnan()),
    }
    return {
        f"{way}@{k}": 100.0 * ((count < k) & possible).double().mean().item()
        for way, (count, possible) in rivals.items()
        for k in ks
    }


def _best_match(own: Tensor, owner: Tensor, images: int) -> tuple[Tensor, Tensor]:
    """Return each image's best matching score, and whether it has one that is a number."""
    best = own.new_full((images,), float("-inf"))
    best = best.scatter_reduce(0, owner, own, reduce="amax")
    valid = torch.zeros(images, dtype=torch.bool, device=own.device)
    valid[owner] = True
    valid[owner[own.isnan()]] = False
    return best, valid


def _unbeaten(scores: Tensor, best: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many scores of its row `best` does not beat, and of its column `own`."""
    per_image = torch.empty(scores.shape[0], dtype=torch.long, device=scores.device)
    per_caption = torch.zeros(scores.shape[1], dtype=torch.long, device=scores.device)
    rows = max(1, BLOCK // scores.shape[1])
    for start in range(0, scores.shape[0], rows):
        block = scores[start : start + rows]
        per_image[start : start + rows] = (~beats(best[start : start + rows, None], block)).sum(1)
        per_caption += (~beats(own, block)).sum(0)
    return per_image, per_caption


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    """Return the row-wise inner product of unit vectors, in at least fp32.

    Row by row, so that equal rows give equal bits wherever they stand in the batch.
    """
    dtype = torch.promote_types(torch.float32, torch.promote_types(first.dtype, second.dtype))
    return (first.to(dtype) * second.to(dtype)).sum(-1)
