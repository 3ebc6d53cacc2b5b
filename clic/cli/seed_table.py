"""The table at the end of a multirun over seeds: means and deviations of the final numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

SEED = "seed="
MOST = 12
"""Most numbers in a table; the runs' files have all of them."""
Numbers = Mapping[str, float]


def last_numbers(records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the last loss of a run's metrics, and the main scores of its last evaluation."""
    losses = [record["loss"] for record in records if "loss" in record]
    scored = [record for record in records if "loss" not in record]
    scores = {
        name: float(value)
        for name, value in (scored[-1] if scored else {}).items()
        if "/" in name and name.split("/")[-1] != "n" and not name.split("/")[-1].startswith("n_")
    }
    main = {n: v for n, v in scores.items() if "/mean/" in n or n.endswith("@1")} or scores
    return {**({"loss": losses[-1]} if losses else {}), **main}


def seed_table(jobs: Sequence[Sequence[str]], numbers: Sequence[Numbers]) -> str:
    """Return means and sample deviations over the seeds of otherwise identical runs.

    Args:
        jobs: The words of each run.
        numbers: The last numbers of each run, empty if it failed.

    Returns:
        A table, or '' if no two runs differ only in their seed.
    """
    groups: dict[tuple[str, ...], list[Numbers]] = {}
    for words, own in zip(jobs, numbers, strict=True):
        rest = tuple(w for w in words if not w.startswith((SEED, "train.run_name=")))
        if own and any(word.startswith(SEED) for word in words):
            groups.setdefault(rest, []).append(own)
    groups = {words: runs for words, runs in groups.items() if len(runs) > 1}
    if not groups:
        return ""
    varied = [
        place
        for place, words in enumerate(zip(*groups, strict=False))
        if len(set(words)) > 1
    ]  # fmt: skip
    lines: list[tuple[str, ...]] = []
    for words, runs in groups.items():
        name = " ".join(words[place] for place in varied)
        shared = [key for key in runs[0] if all(key in run for run in runs)][:MOST]
        for key in shared:
            values = [run[key] for run in runs]
            lines.append((name, key, f"{mean(values):.4g}", f"{stdev(values):.2g}", f"{len(runs)}"))
            name = ""
    heads = ("settings" if varied else "", "number", "mean", "deviation", "seeds")
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    return "\n".join(
        f"{name:<{widths[0]}}  {key:<{widths[1]}}  {average:>{widths[2]}}  {spread:>{widths[3]}}  "
        f"{count:>{widths[4]}}".strip()
        for name, key, average, spread, count in (heads, *lines)
    )
