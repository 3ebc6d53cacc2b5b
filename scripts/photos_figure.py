"""Draw the figure of the photo study from its results: recipes and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOT = "text/sugarcrepe++/{}/tot"
CATEGORIES = {
    "replace_att": "replace\nattribute",
    "replace_obj": "replace\nobject",
    "replace_rel": "replace\nrelation",
    "swap_att": "swap\nattribute",
    "swap_obj": "swap\nobject",
    "mean": "mean",
}


class Style(NamedTuple):
    """How a model is drawn; marker and tone keep it distinct in greyscale, too."""

    label: str
    colour: str
    marker: str


# Part and row of the results -> its marks in the first panel.
MODELS = {
    ("recipes", "base"): Style("base", "0.55", "_"),
    ("recipes", "photos_clip"): Style("CLIP (control)", "0.25", "s"),
    ("recipes", "photos_negclip"): Style("NegCLIP", "#d9a832", "v"),
    ("recipes", "photos_clove"): Style("CLoVe", "#7a9a3a", "<"),
    ("recipes", "photos_clic"): Style("CLIC", "#8c6bb1", "D"),
    ("recipes", "photos_layout"): Style("CLIC with layout", "#c994c7", "P"),
    ("recipes", "photos_best"): Style("photos_best", "#c8502a", "^"),
    ("patched", "alpha 0.75"): Style("photos_best, patched at 0.75", "#08306b", "o"),
}
CURVES = {
    "swap_att": Style("swap, attributes", "#d9a832", "s"),
    "swap_obj": Style("swap, objects", "#c8502a", "^"),
    "mean": Style("mean of all", "#08306b", "o"),
}
TAKEN = ("recipes", "photos_best")  # 120 steps, 6,000 photos
AXES = {
    "steps": ("training steps", 120),
    "photos": ("training photos", 6000),
}


def draw(table: Mapping[str, Any], path: Path) -> bool:
    """Write the figure as a PNG, as wide as a page.

    Args:
        table: The results.
        path: File to write.

    Returns:
        Whether there is a figure: the results contain a model to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not any(values(table, *row, TOT.format("mean")) for row in MODELS):
        return False
    curves = [
        name
        for name in AXES
        if name in table["parts"] and values(table, *TAKEN, TOT.format("mean"))
    ]
    figure = Figure(figsize=(8.6, 3.6 + 2.9 * bool(curves)), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    upper, *lower = figure.subfigures(
        1 + bool(curves), 1, squeeze=False, height_ratios=[3.6, 2.9][: 1 + bool(curves)]
    )[:, 0]
    by_category(upper.subplots(), table)
    if lower:
        axes = lower[0].subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for axis, name in zip(axes, curves, strict=True):
            over(axis, table, name)
        axes[0].set_ylabel("TOT, %", fontsize=9)
        handles, labels = axes[0].get_legend_handles_labels()
        lower[0].legend(
            handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=8
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return True


def by_category(axis: Axes, table: Mapping[str, Any]) -> None:
    """Draw TOT of each category, models side by side, with a mark for each seed."""
    shown = {row: style for row, style in MODELS.items() if values(table, *row, TOT.format("mean"))}
    for number, (row, style) in enumerate(shown.items()):
        shift = 0.09 * (number - (len(shown) - 1) / 2)
        for place, category in enumerate(CATEGORIES):
            found = values(table, *row, TOT.format(category))
            axis.plot(
                [place + shift] * len(found), found, linestyle="none", marker=style.marker,
                color=style.colour, markersize=4.5, markeredgewidth=1.2,
                label=style.label if place == 0 else None,
            )  # fmt: skip
    for place in range(len(CATEGORIES) - 1):
        axis.axvline(place + 0.5, color="0.9", linewidth=0.8)
    axis.set_xticks(range(len(CATEGORIES)), list(CATEGORIES.values()), fontsize=8)
    axis.set_ylabel("TOT, % of SugarCrepe++'s rows", fontsize=9)
    axis.set_xlim(-0.5, len(CATEGORIES) - 0.5)
    tidy(axis)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False, fontsize=8)


def over(axis: Axes, table: Mapping[str, Any], name: str) -> None:
    """Draw TOT of swaps and of all rows over a part's variable, with a mark for each seed."""
    label, taken = AXES[name]
    rows = {count(text): (name, text) for text in table["parts"][name]["rows"]}
    rows[taken] = TAKEN
    for category, style in CURVES.items():
        path = TOT.format(category)
        places = sorted(rows)
        found = [values(table, *rows[place], path) for place in places]
        axis.plot(places, [mean(v) for v in found], color=style.colour, linewidth=1.2)
        for place, each in zip(places, found, strict=True):
            axis.plot(
                [place] * len(each), each, linestyle="none", marker=style.marker,
                color=style.colour, markersize=4, label=style.label if place == taken else None,
            )  # fmt: skip
        base = values(table, "recipes", "base", path)
        axis.axhline(mean(base), color=style.colour, linewidth=0.8, linestyle=":")
    axis.set_xscale("log")
    axis.set_xticks(sorted(rows), [f"{place:,}" for place in sorted(rows)], fontsize=8)
    axis.minorticks_off()
    axis.set_xlabel(f"{label} (dotted: the base)", fontsize=9)
    tidy(axis)


def values(table: Mapping[str, Any], part: str, row: str, path: str) -> Sequence[float]:
    """Return a measure for each seed of a row; none if the results lack the row."""
    found = table["parts"].get(part, {}).get("rows", {}).get(row, {"models": []})
    return [model["measures"][path] for model in found["models"]]


def count(label: str) -> int:
    """Return the number that a row's label begins with, as in "1,000 photos"."""
    return int(label.split()[0].replace(",", ""))


def tidy(axis: Axes) -> None:
    """Remove chart clutter."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.grid(axis="y", color="0.92", linewidth=0.6)
    axis.set_axisbelow(True)
