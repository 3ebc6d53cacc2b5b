"""Turns scores into right and wrong answers, and into recall. Ties are always wrong: see `beats`.

torch is imported inside the functions, so that listing the benchmarks need not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, permutations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


# Scores that `ranks` compares at once, which bounds its memory to some tens of megabytes.
BLOCK = 1 << 22
# The rank of a query without a match, beyond any number of candidates.
NEVER = 1 << 62


def beats(score: Tensor, rival: Tensor) -> Tensor:
    """Return where `score` is strictly higher; neither a tie nor a NaN on either side wins.

    Every benchmark of this library compares scores here. Some public code lets ties win.

    Args:
        score: Any shape that broadcasts against `rival`.
        rival: The score to beat.

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


def group_match(scores: Tensor) -> Tensor:
    """Return bool [N]: whether the right matching of a row's images and captions beats all others.

    GroupMatch (arXiv 2510.07632): of all k! matchings of k images with k captions, the one that
    pairs equal numbers has the highest sum of cosines. Guessing is right with probability 1 / k!.

    Args:
        scores: [N, k, k], image i with caption j; they match if i = j.
    """
    k = scores.shape[1]
    import torch

    own = list(range(k))
    sums = torch.stack([scores[:, own, list(order)].sum(1) for order in permutations(own)])
    return beats(sums[0], sums[1:]).all(0)


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
    # The target need not beat itself; a NaN beats nothing.
    unbeaten = (~beats(own, scores)).sum(1)
    return (unbeaten == 1) & ~own.squeeze(1).isnan()


def recall(
    scores: Tensor, owner: Tensor | Sequence[int], ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Return recall at k in both directions; a query is right if any match is among its top k.

    A match is among the top k if fewer than k non-matching candidates score as high as the best
    match or higher. An image that owns no caption is wrong, as is a query with a NaN match.

    Args:
        scores: [images, captions].
        owner: int [captions], the image of each caption.
        ks: Numbers of top candidates, each at least 1.

    Returns:
        Percentages of images (`image_to_text@k`) and of captions (`text_to_image@k`).

    Raises:
        ValueError: `owner` does not fit `scores`, there is nothing to score, or a k is below 1.
    """
    if len(owner) != scores.shape[1]:
        raise ValueError(
            f"owner of {len(owner)} captions does not fit scores {tuple(scores.shape)}"
        )
    return recall_at(ranks(lambda start, stop: scores[start:stop], len(scores), owner), ks)


def recall_at(found: Mapping[str, Tensor], ks: Sequence[int]) -> dict[str, float]:
    """Return the percentage of ranks up to k, for each direction of `ranks` and each k."""
    if not ks or min(ks) < 1:
        raise ValueError(f"ks={tuple(ks)} must each be at least 1")
    return {
        f"{way}@{k}": 100.0 * (rank <= k).double().mean().item()
        for way, rank in found.items()
        for k in ks
    }


def ranks(
    block: Callable[[int, int], Tensor], images: int, owner: Tensor | Sequence[int]
) -> dict[str, Tensor]:
    """Return each query's rank: 1 + the non-matching candidates that its best match does not beat.

    Args:
        block: (start, stop) -> scores of these images, [stop - start, captions]. It is called
            twice for each block, so that the whole matrix never exists; both results must be
            equal, bit for bit.
        images: Number of images.
        owner: int [captions], the image of each caption.

    Returns:
        int [images] as `image_to_text` and int [captions] as `text_to_image`; `NEVER` for an image
        that owns no caption, and for a query with a NaN match.

    Raises:
        ValueError: There is nothing to rank, or an owner is not an image.
    """
    import torch

    owner = torch.as_tensor(owner).long()
    if not images or not len(owner):
        raise ValueError(f"{images} images and {len(owner)} captions leave nothing to rank")
    if int(owner.min()) < 0 or int(owner.max()) >= images:
        raise ValueError(f"owner names an image outside 0..{images - 1}")
    image_parts, own_parts = [], []
    order = owner.argsort(stable=True)  # puts the captions of a block together
    for start, stop in _spans(images, len(owner)):
        scores = _floating(block(start, stop))
        mine = order[(owner[order] >= start) & (owner[order] < stop)].to(scores.device)
        row = owner.to(scores.device)[mine] - start
        image_part, own_part = _image_ranks(scores, row, mine)
        image_parts.append(image_part)
        own_parts.append(own_part)
    own = torch.empty_like(torch.cat(own_parts))
    own[order.to(own.device)] = torch.cat(own_parts)
    # Counts the match itself, which does not beat itself.
    caption_ranks = torch.zeros(len(owner), dtype=torch.long, device=own.device)
    for start, stop in _spans(images, len(owner)):
        caption_ranks += (~beats(own, _floating(block(start, stop)))).sum(0)
    caption_ranks[own.isnan()] = NEVER
    return {"image_to_text": torch.cat(image_parts), "text_to_image": caption_ranks}


def _spans(images: int, captions: int) -> list[tuple[int, int]]:
    """Return (start, stop) of blocks of nearly equal height, each of about `BLOCK` scores.

    Nearly equal, because a matrix product of one row may round differently from one of many.
    """
    count = min(images, -(-images * captions // BLOCK))
    edges = [images * i // count for i in range(count + 1)]
    return list(pairwise(edges))


def _floating(scores: Tensor) -> Tensor:
    return scores if scores.is_floating_point() else scores.double()


def _image_ranks(scores: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rank of each row's best match, and the scores of the matches (row, column)."""
    import torch

    own = scores[row, column]
    best = own.new_full((len(scores),), float("-inf"))
    best = best.scatter_reduce(0, row, own, reduce="amax")
    unbeaten = (~beats(best[:, None], scores)).sum(1)
    # The unbeaten include the matches themselves, which are not rivals.
    matches = torch.zeros_like(unbeaten).index_add_(0, row, (~beats(best[row], own)).long())
    possible = torch.zeros_like(unbeaten, dtype=torch.bool)
    possible[row] = True
    possible[row[own.isnan()]] = False
    return torch.where(possible, 1 + unbeaten - matches, NEVER), own


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    """Return the row-wise inner product of unit vectors, in at least fp32.

    Row by row, so that equal rows give equal bits at any position of the batch.
    """
    import torch

    dtype = torch.promote_types(torch.float32, torch.promote_types(first.dtype, second.dtype))
    return (first.to(dtype) * second.to(dtype)).sum(-1)
