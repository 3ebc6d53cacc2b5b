"""Draw the figure of the layout study from its JSON of results: over the share, over the steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from layout_report import measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Part of the study -> the variable that its rows differ in, and the axis label.
PANELS = {
    "share": ("share", "share of composites whose layout is told"),
    "steps": ("steps", "training steps"),
}
MEASURES = {"tot": "TOT, %", "p1": "p1, %"}
CONTROL = ("main", "CLIC")  # the row drawn as dashed lines


class Style(NamedTuple):
    """How a category is drawn; marker and tone keep it distinct in greyscale, too."""

    colour: str
    marker: str
    fill: str


STYLES = {
    "replace_rel": Style("#08306b", "o", "#08306b"),
    "swap_phrase": Style("#c8502a", "^", "white"),
    "swap_att": Style("#d9a832", "s", "#d9a832"),
}


def draw(table: Mapping[str, Any], path: Path) -> bool:
    """Write the figure as a PNG, as wide as four fifths of a page.

    Args:
        table: The results.
        path: File to write.

    Returns:
        Whether there is a figure: the results contain one of its parts.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = [name for name in PANELS if name in table["parts"]]
    if not names:
        return False
    figure = Figure(figsize=(3.3 * len(names), 4.6), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(MEASURES), len(names), sharex="col", sharey=True, squeeze=False)
    for column, name in enumerate(names):
        for axis, measure in zip(grid[:, column], MEASURES, strict=True):
            panel(axis, table, name, measure)
        grid[-1, column].set_xlabel(PANELS[name][1], fontsize=9)
    for axis, label in zip(grid[:, 0], MEASURES.values(), strict=True):
        axis.set_ylabel(label, fontsize=9)
    handles, _ = grid[0, 0].get_legend_handles_labels()
    if control_of(table, table["parts"][names[0]]["bases"]):
        handles.append(Line2D([], [], color="0.3", linestyle="--", label="CLIC, layout not told"))
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return True


def panel(axis: Axes, table: Mapping[str, Any], name: str, measure: str) -> None:
    """Draw a measure of the categories over the variable that a part's rows differ in."""
    part = table["parts"][name]
    control = control_of(table, part["bases"])
    rows = sorted(part["rows"], key=lambda row: row[PANELS[name][0]])
    places = [row[PANELS[name][0]] for row in rows]
    for number, (category, style) in enumerate(STYLES.items()):
        path = f"shapes++/{category}/{measure}"
        points = [measured(table, row, part["bases"])[1][path] for row in rows]
        axis.errorbar(
            places,
            [point["mean"] for point in points],
            [point["std"] or 0.0 for point in points],
            color=style.colour,
            marker=style.marker,
            markerfacecolor=style.fill,
            markersize=5,
            linewidth=1.2,
            capsize=2,
            label=category,
            zorder=3 + number,
        )
        if control:
            axis.axhline(control[path]["mean"], color=style.colour, linestyle="--", linewidth=0.9)
    axis.set_xticks(sorted(set(places)))
    axis.set_ylim(-3, 103)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def control_of(table: Mapping[str, Any], bases: list[str]) -> dict[str, dict[str, Any]] | None:
    """Return the measures of the control from the same bases; None if it was not run."""
    part, label = CONTROL
    for row in table["parts"].get(part, {"rows": []})["rows"]:
        if row["label"] == label:
            return measured(table, row, bases)[1]
    return None
