"""Settings of `clic-eval` and `clic-patch`, for flags and for `key=value` words alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from clic.errors import ConfigError

DEFAULT_CACHE_GB = 10.0
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
        text_only: Score the captions alone; images are not needed.
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
    text_only: bool = False
    describe: str | None = None
    against: str | None = None


@dataclass
class PatchConfig(ScoringConfig):
    """Settings of `clic-patch`.

    Attributes:
        run: A finished run, whose base and final model are used; null takes the newest one.
        base: Model at alpha 0, instead of the run's.
        tuned: Model at alpha 1, with `base` and `out`, if there is no run.
        alpha: Alphas to write models at, each between 0 and 1.
        sweep: Alphas to evaluate on `bench`: `start:stop:step`, or a list.
        to: Format of the written models: null for open_clip's folder, `hf` for a folder that
            `CLIPModel` of transformers loads.
    """

    run: str | None = None
    base: str | None = None
    tuned: str | None = None
    alpha: list[str] = field(default_factory=list)
    sweep: list[str] = field(default_factory=list)
    to: str | None = None


def check(settings: ScoringConfig) -> None:
    """Check the values before any work.

    Raises:
        ConfigError: A precision is not known, a number is too small, or a setting has no effect.
    """
    if settings.precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ConfigError(f"precision={settings.precision!r} is not known (choices: {known})")
    for name in ("batch_size", "workers"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value} must be at least 1")
    if settings.cache_gb <= 0:
        raise ConfigError(
            f"cache_gb={settings.cache_gb} must be above 0; cache=false keeps nothing"
        )
    for name, default in (("cache_dir", None), ("cache_gb", DEFAULT_CACHE_GB)):
        value = getattr(settings, name)
        if value != default and not settings.cache:
            raise ConfigError(f"{name}={value} has no effect with cache=false; leave one out")


def parse_alpha(text: str, setting: str = "alpha") -> float:
    """Return an alpha, checked to lie between 0 (the base model) and 1 (the tuned one).

    Raises:
        ConfigError: It is not a number, or lies outside.
    """
    try:
        alpha = float(text)
    except ValueError:
        raise ConfigError(f"{setting}={text} is not a number; give one from 0 to 1") from None
    if not 0.0 <= alpha <= 1.0:
        raise ConfigError(
            f"{setting}={text} lies outside 0..1; 0 is the base model and 1 the tuned one"
        )
    return alpha


def parse_sweep(parts: list[str]) -> list[float]:
    """Return the alphas of a sweep: `["0:1:0.25"]` or `["0", "0.5", "1"]`, ascending, each once.

    Raises:
        ConfigError: A part is not a number from 0 to 1, or a range is not start:stop:step.
    """
    alphas: set[float] = set()
    for part in parts:
        words = str(part).split(":")
        if len(words) == 1:
            alphas.add(parse_alpha(words[0], "sweep"))
            continue
        if len(words) != 3:
            raise ConfigError(f"sweep={part} is not start:stop:step, e.g. 0:1:0.25")
        start, stop = (parse_alpha(word, "sweep") for word in words[:2])
        step = parse_alpha(words[2], "sweep step")
        if step == 0 or stop < start:
            raise ConfigError(f"sweep={part}: stop must not be below start, nor step be 0")
        # Rounded, so that 3 steps of 0.1 are 0.3; a last step of rounding error still counts.
        count = int((stop - start) / step + 1e-9)
        alphas.update(round(start + i * step, 9) for i in range(count + 1))
    return sorted(alphas)
