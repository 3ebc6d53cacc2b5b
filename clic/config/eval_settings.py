"""Settings of `clic-eval` and `clic-patch`, for flags and for `key=value` words alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from clic.errors import ConfigError

DEFAULT_CACHE_GB = 10.0
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass
class EvalConfig:
    """Settings of `clic-eval`.

    Attributes:
        bench: Benchmarks and groups of them.
        model: Models; empty takes the newest finished run, else `ViT-B-32:openai`.
        compare: Models, or results written before, instead of `model`: differences to the first
            with their intervals.
        data: Folder of the benchmarks' files, default CLIC_DATA, then `./data`.
        out: Folder to write every kind of file to.
        json: File to write the report to.
        rows: File to write every row's outcome to, as JSON lines.
        csv: File to write every number to, a line each, unrounded.
        markdown: File to write tables to.
        latex: File to write booktabs tables to.
        html: File to write a self-contained page to.
        batch_size: Images, or texts, at a time.
        workers: Threads that decode images; null takes the cores that the process may use.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`; `bf16` or `fp16` to encode under autocast; `auto` for fp16 on CUDA, else
            fp32.
        cache: Keep features on disk, so that no tower encodes an image or a text twice.
        cache_dir: Folder to keep them in, default `features` in CLIC_CACHE, then in ~/.cache/clic.
        cache_gb: Size of that folder in 10^9 bytes; what was used least recently goes first.
        allow_missing: Leave out rows whose image is missing or broken, and say how many.
        text_only: Score the captions alone; no image is looked for.
        split: `test` or `validation` of the world's benchmarks (`train` to look at it).
        seed: Seed of the world's benchmarks.
    """

    bench: list[str] = field(default_factory=list)
    model: list[str] = field(default_factory=list)
    compare: list[str] = field(default_factory=list)
    data: str | None = None
    out: str | None = None
    json: str | None = None
    rows: str | None = None
    csv: str | None = None
    markdown: str | None = None
    latex: str | None = None
    html: str | None = None
    batch_size: int = 64
    workers: int | None = None
    device: str = "auto"
    precision: str = "auto"
    cache: bool = True
    cache_dir: str | None = None
    cache_gb: float = DEFAULT_CACHE_GB
    allow_missing: bool = False
    text_only: bool = False
    split: str = "test"
    seed: int = 0


@dataclass
class PatchConfig:
    """Settings of `clic-patch`.

    Attributes:
        run: A finished run, whose base and final model are taken; null takes the newest one.
        base: Model of alpha 0, instead of the run's.
        tuned: Model of alpha 1, with `base` and `out`, where there is no run.
        alpha: Where to write models, each between 0 and 1.
        sweep: Alphas to evaluate on `bench`: `start:stop:step`, or a list.
        out: Folder to write to, default the run's own.
        bench: Benchmarks of the sweep.
        data: Folder of the benchmarks' files, default CLIC_DATA, then `./data`.
        batch_size: Images, or texts, at a time.
        workers: Threads that decode images; null takes the cores that the process may use.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`; `bf16` or `fp16` to encode under autocast; `auto` for fp16 on CUDA, else
            fp32.
        cache: Keep features on disk, so that no tower encodes an image or a text twice.
        cache_dir: Folder to keep them in, default `features` in CLIC_CACHE, then in ~/.cache/clic.
        cache_gb: Size of that folder in 10^9 bytes; what was used least recently goes first.
        allow_missing: Leave out rows whose image is missing or broken, and say how many.
        split: Split of the world's benchmarks.
        seed: Seed of the world's benchmarks.
    """

    run: str | None = None
    base: str | None = None
    tuned: str | None = None
    alpha: list[str] = field(default_factory=list)
    sweep: list[str] = field(default_factory=list)
    out: str | None = None
    bench: list[str] = field(default_factory=list)
    data: str | None = None
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


def check(settings: EvalConfig | PatchConfig) -> None:
    """Check what types cannot say, before any work.

    Raises:
        ConfigError: A precision is not known, or a number is below 1.
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
    if not settings.cache:
        for name, default in (("cache_dir", None), ("cache_gb", DEFAULT_CACHE_GB)):
            if getattr(settings, name) != default:
                raise ConfigError(
                    f"{name}={getattr(settings, name)} has no effect with cache=false; "
                    "leave one out"
                )


def parse_alpha(text: str, setting: str = "alpha") -> float:
    """Return an alpha, checked to lie between 0 (the base model) and 1 (the tuned one).

    Raises:
        ConfigError: It is no number, or lies outside.
    """
    try:
        alpha = float(text)
    except ValueError:
        raise ConfigError(f"{setting}={text} is no number; give one from 0 to 1") from None
    if not 0.0 <= alpha <= 1.0:
        raise ConfigError(
            f"{setting}={text} lies outside 0..1; 0 is the base model and 1 the tuned one"
        )
    return alpha


def parse_sweep(parts: list[str]) -> list[float]:
    """Return the alphas of a sweep: `["0:1:0.25"]` or `["0", "0.5", "1"]`, ascending, each once.

    Raises:
        ConfigError: A part is no number from 0 to 1, or a range is not start:stop:step.
    """
    alphas: set[float] = set()
    for part in parts:
        words = str(part).split(":")
        if len(words) == 1:
            alphas.add(parse_alpha(words[0], "sweep"))
            continue
        if len(words) != 3:
            raise ConfigError(f"sweep={part} is no start:stop:step, e.g. 0:1:0.25")
        start, stop = (parse_alpha(word, "sweep") for word in words[:2])
        step = parse_alpha(words[2], "sweep step")
        if step == 0 or stop < start:
            raise ConfigError(f"sweep={part}: stop must not be below start, nor step be 0")
        # Rounded, so that 3 steps of 0.1 are 0.3; a last step of rounding error still counts.
        count = int((stop - start) / step + 1e-9)
        alphas.update(round(start + i * step, 9) for i in range(count + 1))
    return sorted(alphas)
