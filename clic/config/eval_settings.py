"""Settings of `clic-eval`, and those that it shares with `clic-patch`, as flags or `key=value`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from clic.errors import ConfigError, pick

DEFAULT_CACHE_GB = 10.0
FIGURE_KINDS = ("dots", "radar")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass
class ScoringConfig:
    """Settings that `clic-eval` and `clic-patch` share.

    Attributes:
        bench: Benchmarks and groups of benchmarks.
        data: Folder of the benchmarks' files; null takes CLIC_DATA, then `./data`.
        out: Folder for all outputs; `clic-patch` takes the run's own by default.
        batch_size: Images, or texts, encoded at a time.
        workers: Threads that decode images; null takes one for each core the process may use.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`; `bf16` or `fp16` to encode under autocast; `auto` for fp16 on CUDA, else
            fp32.
        cache: Keep features on disk, so that no image or text is encoded twice.
        cache_dir: Folder of those features; null takes `features` in CLIC_CACHE, then in
            ~/.cache/clic.
        cache_gb: Size limit of that folder in 10^9 bytes; the least recently used features are
            removed.
        allow_missing: Leave out rows whose image is missing or broken, and report how many.
        split: `test` or `validation` of the shapes benchmarks (`train` to inspect it).
        seed: Seed of the shapes benchmarks.
    """

    bench: list[str] = field(default_factory=list)
    data: str | None = None
    out: str | None = None
    batch_size: int = 64
    workers: int | None = None
    device: str = "auto"
    precision: str = "auto"
    cache: bool = True
    cache_dir: str | None = None
    cache_gb: float = DEFAULT_CACHE_GB
    allow_missing: bool = False
    split: str = "test"
    seed: int = 0


@dataclass
class EvalConfig(ScoringConfig):
    """Settings of `clic-eval`.

    Attributes:
        model: Models; if empty, the newest finished run, else `ViT-B-32:openai`.
        compare: Models or saved results to compare, instead of `model`: differences to the first
            one with confidence intervals.
        json: File for the report.
        rows: File for the outcome of every row, as JSON lines.
        csv: File for every number, one a line, unrounded.
        markdown: File for tables in Markdown.
        latex: File for booktabs tables.
        html: File for a self-contained page.
        figure: Files for a figure, which end in .png, .svg or .pdf.
        figure_kind: `dots`, with intervals, or `radar`.
        text_only: Score the captions alone; images are not needed.
        published: Show what papers print of the model, where it is known, and the differences.
        probe: `shapes`, or a file of images with labels: linear probes of the image tower, instead
            of benchmarks.
        describe: A model to describe instead of scoring: its architecture, activation,
            preprocessing, tokenizer, context, parameters and hashes; `json` takes the same.
        against: With `describe`, a model to compare it with: what differs, and in which tower.
    """

    model: list[str] = field(default_factory=list)
    compare: list[str] = field(default_factory=list)
    json: str | None = None
    rows: str | None = None
    csv: str | None = None
    markdown: str | None = None
    latex: str | None = None
    html: str | None = None
    figure: list[str] = field(default_factory=list)
    figure_kind: str = "dots"
    text_only: bool = False
    published: bool = False
    probe: str | None = None
    describe: str | None = None
    against: str | None = None


def check(settings: ScoringConfig) -> None:
    """Check the values before any work.

    Raises:
        ConfigError: A precision is not known, a number is too small, or a setting has no effect.
    """
    if settings.precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ConfigError(f"precision={settings.precision!r} is not known (choices: {known})")
    if isinstance(settings, EvalConfig):
        pick(dict.fromkeys(FIGURE_KINDS), settings.figure_kind, "figure_kind")
        if settings.figure_kind != EvalConfig.figure_kind and not settings.figure:
            raise ConfigError(
                f"figure_kind={settings.figure_kind} has no effect without figure=FILE; leave one "
                "out"
            )
    for name in ("batch_size", "workers"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value} must be at least 1")
    if not settings.cache_gb > 0:  # NaN neither
        raise ConfigError(
            f"cache_gb={settings.cache_gb} must be above 0; cache=false keeps nothing"
        )
    for name, default in (("cache_dir", None), ("cache_gb", DEFAULT_CACHE_GB)):
        value = getattr(settings, name)
        if value != default and not settings.cache:
            raise ConfigError(f"{name}={value} has no effect with cache=false; leave one out")


def check_unused(settings: ScoringConfig, names: Sequence[str], reason: str) -> None:
    """Raise `ConfigError` if one of these settings, which have no effect, is not at its default."""
    default = type(settings)()
    for name in names:
        value = getattr(settings, name)
        if value != getattr(default, name):
            shown = ",".join(map(str, value)) if isinstance(value, list) else value
            raise ConfigError(f"{name}={shown} has no effect{reason}; leave it out")
