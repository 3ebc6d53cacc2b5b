"""A finished run as one self-contained page: results, curves, examples, settings and origin.

Like the page of `clic-eval --html`, whose style it shares, it runs no script and loads nothing.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from clic import runs
from clic.config.train_settings import Config
from clic.errors import redact
from clic.evaluation.report.html_page import POLICY
from clic.io.files import write_whole
from clic.training.metrics_log import EXAMPLES, read
from clic.training.run_folder import flat

REPORT_FILE = "report.html"
PROFILE = Path("profile") / "profile.txt"
COLOURS = ("#2867c7", "#d9662a", "#2a9171", "#9b59a8", "#b58900", "#8b919c")
MOST_LINES = len(COLOURS)
Record = dict[str, Any]


class Panel(NamedTuple):
    """A heading, and the names of the numbers that one plot shows, with their labels."""

    title: str
    lines: dict[str, str]


class ReportPicture(NamedTuple):
    """A picture as a data URI, and what it shows."""

    title: str
    uri: str


def write_report(run: Path, config: Config) -> Path:
    """Write `RUN/report.html` and return its path."""
    # Imported here, because jinja2 loads slowly and only pages need it.
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    records = read(run / runs.METRICS_FILE)
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("clic.training", "."), PackageLoader("clic.evaluation.report", ".")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    profile = run / PROFILE
    page = environment.get_template("run_report.html").render(
        policy=POLICY,
        name=run.name,
        results=results(run, records) | main_scores(last_scores(records)),
        scores=last_scores(records),
        curves=[ReportPicture(panel.title, draw(panel, records)) for panel in panels(records)],
        examples=list(examples(run)),
        profile=profile.read_text(encoding="utf-8") if profile.is_file() else "",
        changed=changed(config),
        settings={key: _shown(value) for key, value in flat(redact(asdict(config))).items()},
        provenance={k: _shown(v) for k, v in flat(runs.read_provenance(run)).items()},
    )
    write_whole(run / REPORT_FILE, page)
    return run / REPORT_FILE


def results(run: Path, records: Sequence[Record]) -> dict[str, str]:
    """Return the run's last numbers by name."""
    trained = [record for record in records if "loss" in record]
    if not trained:
        return {}
    last = trained[-1]
    found = {"steps": f"{last['step']:,}", "last loss": f"{last['loss']:.4g}"}
    rates = [record["images_per_second"] for record in trained if "images_per_second" in record]
    if rates:
        found["images a second, mean"] = f"{sum(rates) / len(rates):,.1f}"
    waits = [record["data_wait"] for record in trained if "data_wait" in record]
    if waits:
        found["share of the time waiting for data, mean"] = f"{sum(waits) / len(waits):.1%}"
    if "peak_memory_gb" in last:
        found["most memory on the GPU"] = f"{last['peak_memory_gb']:.2f} GB"
    for key, name in (("data/broken", "broken samples"), ("data/broken_shards", "broken shards")):
        if last.get(key):
            found[name] = f"{last[key]:,}"
    skipped = sum(record.get("skipped_steps", 0) for record in trained)
    if skipped:
        found["skipped steps"] = f"{skipped:,}"
    best = run / runs.BEST / runs.BEST_FILE
    if best.is_file():
        kept = json.loads(best.read_text(encoding="utf-8"))
        found["best"] = f"{kept['metric']} {kept['value']:.4g} at step {kept['step']:,}"
    return found


def last_scores(records: Sequence[Record]) -> dict[str, str]:
    """Return the scores of the last evaluation, without counts of rows."""
    scored = [record for record in records if "loss" not in record]
    last = scored[-1] if scored else {}
    return {
        name: f"{value:.4g}"
        for name, value in last.items()
        if name not in ("step", "time") and not _is_count(name)
    }


def main_scores(scores: dict[str, str]) -> dict[str, str]:
    """Return the means and the recalls at 1."""
    return {name: value for name, value in scores.items() if _is_main(name)}


def panels(records: Sequence[Record]) -> list[Panel]:
    """Return the plots: the loss, its terms by kind of batch, rates, and main scores."""
    names = list(dict.fromkeys(name for record in records for name in record))
    found = [Panel("Loss", {"loss": "loss"})] if "loss" in names else []
    for kind in ("composite", "single"):
        terms = {
            name: name.removeprefix(f"{kind}/")
            for name in names
            if name.startswith(f"{kind}/") and "no_negative" not in name
        }
        if terms:
            found.append(Panel(f"Terms of {kind} batches", _first(terms)))
    missing = {
        n: n.replace("/no_negative", "") for n in names if "/no_negative" in n and n[0] != "d"
    }
    for title, lines in (
        ("Rows without a false caption", _first(missing)),
        ("Learning rate", {"lr": "lr"}),
        ("Logit scale", {"logit_scale": "logit_scale"}),
        ("Images a second", {"images_per_second": "images/s"}),
        ("Share of the time waiting for data", {"data_wait": "waiting"}),
    ):
        lines = {name: label for name, label in lines.items() if name in names}
        if lines:
            found.append(Panel(title, lines))
    scored = {name for record in records if "loss" not in record for name in record}
    benches = dict.fromkeys(name.split("/")[0] for name in names if name in scored and "/" in name)
    for bench in benches:
        own = [n for n in names if n in scored and n.startswith(f"{bench}/") and not _is_count(n)]
        main = [n for n in own if _is_main(n)] or own
        found.append(Panel(bench, _first({n: n.removeprefix(f"{bench}/") for n in main})))
    return found


def draw(panel: Panel, records: Sequence[Record]) -> str:
    """Return a plot of a panel's numbers over the steps, as the data URI of an SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.hashsalt": panel.title, "svg.fonttype": "none", "font.size": 9,
        "text.parse_math": False,  # a category of your own benchmark may contain $
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.2, 2.5), layout="constrained")
        axes = figure.add_subplot()
        for (name, label), colour in zip(panel.lines.items(), COLOURS, strict=False):
            points = [(record["step"], record[name]) for record in records if name in record]
            axes.plot(
                *zip(*points, strict=True),
                color=colour,
                label=label,
                linewidth=1.4,
                marker="o" if len(points) < 20 else "",
                markersize=3,
            )
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.set_xlabel("step")
        if len(panel.lines) > 1:
            axes.legend(frameon=False, fontsize=8)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return _uri(file.getvalue(), "image/svg+xml")


def examples(run: Path) -> Iterator[ReportPicture]:
    """Yield the first and the last picture of each kind of batch."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted((run / EXAMPLES).glob("step-*.png")):
        kinds.setdefault(path.stem.split("-")[-1], []).append(path)
    for paths in kinds.values():
        for path in dict.fromkeys([paths[0], paths[-1]]):
            _, step, kind = path.stem.split("-", 2)
            yield ReportPicture(f"step {int(step):,}, {kind}", _uri(path.read_bytes(), "image/png"))


def changed(config: Config) -> dict[str, str]:
    """Return the settings that differ from clic's defaults."""
    usual, own = flat(asdict(Config())), flat(redact(asdict(config)))
    return {key: _shown(value) for key, value in own.items() if usual.get(key) != value}


def _first(lines: dict[str, str]) -> dict[str, str]:
    return dict(list(lines.items())[:MOST_LINES])


def _is_main(name: str) -> bool:
    return "/mean/" in name or name.endswith("@1")


def _is_count(name: str) -> bool:
    last = name.split("/")[-1]
    return last == "n" or last.startswith("n_")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
