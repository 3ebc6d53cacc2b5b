"""Pictures of what shards hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from clic.data.verify import Findings

BLUE, ORANGE = "#3b6ea5", "#c8702a"
BINS = 60


def draw_histogram(found: Findings, contexts: Sequence[int], model: str, path: Path) -> None:
    """Draw how long captions are, and how wide images are, as a PNG.

    Args:
        found: What was found.
        contexts: Numbers of tokens to mark.
        model: Whose tokens they are.
        path: The PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    lengths, counts = _arrays(found.lengths)
    first, first_counts = _arrays(found.first_lengths)
    longest = max(int(lengths.max()), *contexts) + 2
    edges = np.arange(0, longest + 1, max(1, -(-longest // BINS))) - 0.5
    left.hist(lengths, edges, weights=counts / counts.sum(), color=BLUE, label="all captions")
    left.hist(
        first,
        edges,
        weights=first_counts / first_counts.sum(),
        histtype="step",
        color=ORANGE,
        linewidth=1.5,
        label="first captions",
    )
    for context in contexts:
        left.axvline(context, color="black", linewidth=0.8, linestyle=":")
        left.annotate(f" {context}", (context, 0.94), xycoords=("data", "axes fraction"))
    left.set(xlabel=f"tokens of a caption ({model})", ylabel="share", xlim=(0, longest))
    left.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    ratios = np.log2([width / height for width, height in found.sizes])
    images = np.array(list(found.sizes.values())) / sum(found.sizes.values())
    reach = max(1.0, float(np.ceil(np.abs(ratios).max() * 2) / 2))
    right.hist(ratios, np.linspace(-reach, reach, BINS + 1), weights=images, color=BLUE)
    right.axvline(0, color="black", linewidth=0.8, linestyle=":")
    ticks = np.arange(-np.floor(reach), np.floor(reach) + 1)
    labels = [f"{2**t:g}:1" if t >= 0 else f"1:{2**-t:g}" for t in ticks]
    right.set(xlabel="width : height", ylabel="share of images", xticks=ticks, xticklabels=labels)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=120)


def _arrays(counter: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(list(counter)), np.array(list(counter.values()), dtype=float)
