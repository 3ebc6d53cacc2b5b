"""The layout of a run's folder, and how runs are found again.

A run is a folder under ``runs/``:

- ``config.yaml``, ``provenance.json``, ``metrics.jsonl``: its settings, origin and metrics;
- ``report.html``, ``examples/``, ``profile/``, ``tensorboard/``: how it went, for people to read;
- ``base/``: the model it started from, kept only if it could not be made again otherwise;
- ``checkpoints/step-000020/``: an open_clip folder, the training state and a ``COMPLETE`` marker;
- ``best/``: the model of the best evaluation, with ``best.json``, if the run chooses one;
- ``model/``: the final open_clip folder, written last, so that its weights mean "finished";
- ``patched/alpha-0.50/``: open_clip folders between base and model;
- ``sweep.json``, ``sweep.csv``, ``sweep.png``, ``trade-off.png``: results of a sweep over
  alpha and their plots (also as SVG).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from clic.errors import DataError, ModelError, did_you_mean

RUNS = "runs"
CONFIG_FILE = "config.yaml"
PROVENANCE_FILE = "provenance.json"
METRICS_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
COMPLETE = "COMPLETE"
MODEL = "model"
BASE = "base"
BEST = "best"
BEST_FILE = "best.json"
SKIPPED_FILE = "skipped_step.json"
PATCHED = "patched"
SWEEP_FILE = "sweep.json"
SWEEP_TABLE = "sweep.csv"
SWEEP_PICTURE = "sweep.png"
TRADE_OFF_PICTURE = "trade-off.png"

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
STEP_FOLDER = re.compile(r"step-(\d{6,})", re.ASCII)
HUGGING_FACE_CONFIG = "config.json"
HUGGING_FACE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def step_folder(step: int) -> str:
    """Return the name of a checkpoint's folder, e.g. ``step-000020``."""
    return f"step-{step:06d}"


def alpha_folder(alpha: float) -> str:
    """Return the name of a patched model's folder, e.g. ``alpha-0.50``, further digits if any."""
    two_digits = f"{alpha:.2f}"
    return f"alpha-{two_digits if float(two_digits) == alpha else repr(float(alpha))}"


def is_open_clip_folder(path: Path) -> bool:
    """Return whether `path` contains a model in open_clip's folder format."""
    return (path / OPEN_CLIP_CONFIG).is_file() and (path / OPEN_CLIP_WEIGHTS).is_file()


def is_hugging_face_folder(path: Path) -> bool:
    """Return whether `path` contains a model in Hugging Face's folder format, CLIP or other."""
    weights = any((path / name).is_file() for name in HUGGING_FACE_WEIGHTS)
    return (path / HUGGING_FACE_CONFIG).is_file() and weights


def is_finished(run: Path) -> bool:
    """Return whether a run has written its final model."""
    return is_open_clip_folder(run / MODEL)


def is_run(path: Path) -> bool:
    """Return whether `path` looks like a run's folder, finished or not."""
    return (path / CONFIG_FILE).is_file() or is_finished(path)


def _runs_below(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def newest_finished(root: str | Path = RUNS) -> Path | None:
    """Return the run under `root` whose final model was written last, or None."""
    finished = [run for run in _runs_below(Path(root)) if is_finished(run)]
    times = {run: (run / MODEL / OPEN_CLIP_WEIGHTS).stat().st_mtime for run in finished}
    return max(finished, key=lambda run: (times[run], run.name), default=None)


def complete_checkpoints(run: str | Path) -> list[Path]:
    """Return the complete checkpoints of a run, from the lowest step to the highest.

    Folders with other names, such as a copy that a user keeps, do not count.
    """
    steps = {
        folder: int(match.group(1))  # by name, step-1000000 would come before step-999999
        for folder in _runs_below(Path(run) / CHECKPOINTS)
        if (match := STEP_FOLDER.fullmatch(folder.name)) and (folder / COMPLETE).is_file()
    }
    return sorted(steps, key=steps.__getitem__)


def resolve(path: str | Path) -> Path:
    """Return the model folder that a path refers to.

    The path may be a finished run, a complete checkpoint, or any folder in the format of open_clip
    or Hugging Face.

    Raises:
        ModelError: There is no model at `path`.
    """
    path = Path(path)
    if path.parent.name == CHECKPOINTS and not (path / COMPLETE).is_file() and path.is_dir():
        raise ModelError(f"{path} is a checkpoint that was not completely written; use another")
    if is_open_clip_folder(path) or is_hugging_face_folder(path):
        return path
    if is_finished(path):
        return path / MODEL
    if is_run(path):
        checkpoints = complete_checkpoints(path)
        remedy = f"name its newest checkpoint {checkpoints[-1]}" if checkpoints else "finish it"
        raise ModelError(f"run {path} has not finished (no {MODEL}/{OPEN_CLIP_WEIGHTS}); {remedy}")
    if path.is_dir():
        raise ModelError(
            f"{path} holds no model: neither {OPEN_CLIP_CONFIG} with {OPEN_CLIP_WEIGHTS}, "
            f"nor a run's {MODEL}/"
        )
    near = did_you_mean(path.name, [p.name for p in _runs_below(path.parent)])
    raise ModelError(f"there is no folder {path}{near}")


def source_of(name: str) -> str:
    """Return the name of a model with the paths of runs and folders resolved.

    The path of an open_clip folder, a run or a checkpoint, with or without `local-dir:`, becomes
    `local-dir:` and the absolute path of its folder; any other name is returned unchanged.

    Raises:
        ModelError: The path contains no model.
    """
    path = Path(name.removeprefix("local-dir:")).expanduser()
    if not name.startswith("local-dir:") and not path.is_dir():
        return name
    return f"local-dir:{resolve(path).resolve()}"


def read_provenance(run: str | Path) -> dict[str, Any]:
    """Return a run's provenance; raises `DataError` if the file is missing or not a JSON object."""
    path = Path(run) / PROVENANCE_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); is {run} a run?") from error
    except ValueError as error:
        raise DataError(f"{path} is no valid JSON ({error})") from error
    if not isinstance(record, dict):
        raise DataError(f"{path} should hold a JSON object, not a {type(record).__name__}")
    return record


def base_of(run: str | Path) -> str:
    """Return the model a run started from, in a form that ``clic.load`` accepts.

    ``base/`` inside the run wins; otherwise it is the entry ``base`` of its provenance.

    Raises:
        DataError: The run does not record its base model, or that is not on this machine.
    """
    run = Path(run)
    if is_open_clip_folder(run / BASE):
        return str(run / BASE)
    base = read_provenance(run).get("base")
    if not isinstance(base, str) or not base:
        raise DataError(
            f"{run / PROVENANCE_FILE} does not name the run's base model (entry 'base'); "
            "name it with --base"
        )
    folder = Path(base.removeprefix("local-dir:"))
    if folder.is_absolute() and not folder.is_dir():
        raise DataError(
            f"run {run} started from {folder}, which no longer exists; name the base model with "
            "--base"
        )
    return base


def chosen_by(name: str) -> list[str]:
    """Return the benchmarks that chose a model, as they were named: scoring it on them is no test.

    They choose the best model that a run keeps, when a run stops early (`train.patience`),
    and the alpha of a patched model that a sweep keeps. A model that was moved
    out of its run or sweep is not recognised.

    Args:
        name: A model's name or path.
    """
    path = Path(name.removeprefix("local-dir:")).expanduser()
    if not path.is_dir():
        return []
    path = path.resolve()
    if path.name == MODEL and is_run(path.parent):
        path = path.parent
    if path.name == BEST and is_run(path.parent):
        return _metric_bench(_json_object(path / BEST_FILE).get("metric"))
    if is_run(path):
        best = _json_object(path / BEST / BEST_FILE)
        return _metric_bench(best.get("metric")) if _had_patience(path) else []
    for folder in (path.parent, path.parent.parent):
        choice = _json_object(folder / SWEEP_FILE).get("choice")
        alpha = choice.get("alpha") if isinstance(choice, dict) else None
        if isinstance(choice, dict) and isinstance(alpha, int | float):
            if path.name != alpha_folder(alpha):
                return []
            return list(dict.fromkeys(str(one["bench"]) for one in choice.get("select", [])))
    return []


def _metric_bench(metric: object) -> list[str]:
    """Return the benchmark of a score such as ``coco-retrieval@val/mean``."""
    return [metric.partition("/")[0]] if isinstance(metric, str) and metric else []


def _had_patience(run: Path) -> bool:
    """Return whether a run could stop early, for lack of a better evaluation."""
    try:
        text = (run / CONFIG_FILE).read_text(encoding="utf-8")
    except OSError:
        return False
    return re.search(r"^\s+patience:\s*\d+\s*$", text, re.MULTILINE) is not None


def _json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or an empty one if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
