"""Settings of `clic-patch`: one model between two, a sweep of them, or one made from several."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from clic.config.eval_settings import ScoringConfig, check, check_unused
from clic.errors import ConfigError, pick

METHODS = {
    "uniform": (),
    "weights": ("weights",),
    "greedy": ("select",),
    "task": ("base", "scale"),
    "ties": ("base", "scale", "density"),
    "dare": ("base", "scale", "density", "draw_seed"),
    "stock": ("base",),
    "slerp": ("weights",),
}
"""The methods of making one model from several, and the settings that each of them reads."""
DEFAULT_DENSITY = {"ties": 0.2, "dare": 0.1}
"""The share of each difference that is kept, as in the papers' main results."""
MAX_DROP = 1.0


@dataclass
class PatchConfig(ScoringConfig):
    """Settings of `clic-patch`.

    Attributes:
        run: A finished run, whose base and final model are used; null takes the newest one.
        base: Model at alpha 0, instead of the run's; the common base of a soup's models.
        tuned: Model at alpha 1, with `base` and `out`, if there is no run.
        alpha: Alphas to write models at, and rules `regex=value` for the tensors in whose names
            the regular expression is found; of several rules the last one wins.
        alpha_text: Alpha of everything outside the vision tower, logit_scale included.
        alpha_vision: Alpha of the vision tower.
        alpha_depth: `first:last`, alphas of the first and the last block of each tower and
            linearly between them, instead of one alpha.
        extrapolate: Allow alphas below 0 and above 1.
        sweep: Alphas to evaluate: `start:stop:step`, or a list.
        select: Benchmarks that the alpha of a sweep, or a greedy soup, is chosen by;
            `NAME/category/metric` names a number other than the usual one.
        report: Benchmarks that a choice is reported on; none of them may be in `select`.
        max_drop: Points that a chosen alpha may lose against alpha 0 on each retrieval and
            classification benchmark in `select`; null is 1.
        keep_best: Write the model of the alpha that was chosen.
        soup: Models to make one of, with `out`.
        method: How: `uniform` or `weights` average them; `greedy` adds them while `select` does
            not get worse; `task`, `ties`, `dare` and `stock` combine their differences to `base`;
            `slerp` goes along the arc between two.
        weights: Weights of the models, for the methods `weights` and `slerp`; they are divided by
            their sum.
        scale: Factor of the combined difference (`task`, `ties`, `dare`); null is 1.
        density: Share of each difference that is kept; null is 0.2 for `ties`, 0.1 for `dare`.
        draw_seed: Seed of what `dare` drops.
        to: Format of the written models: null for open_clip's folder, `hf` for a folder that
            `CLIPModel` or `SiglipModel` of transformers loads, `onnx` for an ONNX file of each
            tower.
        card: Whether a model card (README.md) is written into the folder.
        results: Report of `clic-eval --json` whose numbers the card shows.
    """

    run: str | None = None
    base: str | None = None
    tuned: str | None = None
    alpha: list[str] = field(default_factory=list)
    alpha_text: float | None = None
    alpha_vision: float | None = None
    alpha_depth: str | None = None
    extrapolate: bool = False
    sweep: list[str] = field(default_factory=list)
    select: list[str] = field(default_factory=list)
    report: list[str] = field(default_factory=list)
    max_drop: float | None = None
    keep_best: bool = False
    soup: list[str] = field(default_factory=list)
    method: str = "uniform"
    weights: list[float] = field(default_factory=list)
    scale: float | None = None
    density: float | None = None
    draw_seed: int = 0
    to: str | None = None
    card: bool = False
    results: str | None = None


SWEEP_ONLY = ("bench", "report", "max_drop", "keep_best")
SCORED_ONLY = (
    "data", "batch_size", "workers", "device", "precision", "allow_missing", "split", "seed",
)  # fmt: skip
"""Settings without effect if nothing is scored."""
SOUP_ONLY = ("method", "weights", "scale", "density", "draw_seed")
PAIR_ONLY = (
    "run", "tuned", "alpha", "alpha_text", "alpha_vision", "alpha_depth", "extrapolate", "sweep",
)  # fmt: skip
FORMATS = ("hf", "onnx")
"""Formats of written models besides open_clip's."""
PARTS = ("alpha_text", "alpha_vision", "alpha_depth")


def check_patch(settings: PatchConfig) -> None:
    """Check the values before any work.

    Raises:
        ConfigError: There is nothing to do, or a setting is missing, has a wrong value, or has no
            effect.
    """
    if settings.soup:
        _check_soup(settings)
    elif settings.sweep:
        _check_sweep(settings)
    elif settings.alpha or any(getattr(settings, name) is not None for name in PARTS):
        check_unused(settings, (*SWEEP_ONLY, "select", *SCORED_ONLY), " without --sweep")
    else:
        raise ConfigError(
            "nothing to do; give --alpha 0.5, --sweep 0:1:0.25 --bench NAME, or --soup A B"
        )
    if not settings.soup:
        check_unused(settings, SOUP_ONLY, " without --soup")
    if settings.to not in (None, *FORMATS):
        raise ConfigError(f"to={settings.to} is not known (choices: {', '.join(FORMATS)})")
    if settings.to and not any(getattr(settings, name) for name in ("alpha", *PARTS)):
        raise ConfigError(f"to={settings.to} has no effect without --alpha; leave it out")
    if settings.card and not any(getattr(settings, name) for name in ("alpha", *PARTS)):
        raise ConfigError("--card has no effect without --alpha; leave it out")
    if settings.results and not settings.card:
        raise ConfigError("--results has no effect without --card; give both, or neither")
    check(settings)


def _check_sweep(settings: PatchConfig) -> None:
    if not settings.bench and not settings.select:
        raise ConfigError(
            "--sweep needs --bench NAME, or --select NAME to choose an alpha by (clic-eval --bench "
            "list shows them)"
        )
    if settings.select and settings.bench:
        raise ConfigError("bench has no effect beside select; name what is reported with --report")
    if not settings.select:
        check_unused(settings, ("report", "max_drop", "keep_best"), " without --select")
    if settings.max_drop is not None and not settings.max_drop >= 0:
        raise ConfigError(f"max_drop={settings.max_drop} must be 0 or more points")
    if settings.alpha_depth is not None:
        raise ConfigError("alpha_depth has no effect with --sweep, whose alphas it would replace")


def _check_soup(settings: PatchConfig) -> None:
    check_unused(settings, (*PAIR_ONLY, *SWEEP_ONLY), " with --soup")
    reads = pick(METHODS, settings.method, "method")
    if settings.out is None:
        raise ConfigError("--soup needs --out DIR for the new model")
    for name in ("base", "select", *SOUP_ONLY[1:]):
        if name not in reads:
            check_unused(settings, (name,), f" with --method {settings.method}")
    for name in ("base", "select"):
        if name in reads and not getattr(settings, name):
            raise ConfigError(f"--method {settings.method} needs --{name}")
    if "select" not in reads:
        check_unused(
            settings, SCORED_ONLY, f" with --method {settings.method}, which scores nothing"
        )


def parse_alpha(text: str, setting: str = "alpha", extrapolate: bool = False) -> float:
    """Return an alpha, checked to lie between 0 (the base model) and 1 (the tuned one).

    Raises:
        ConfigError: It is not a number, or lies outside 0..1 without `extrapolate`.
    """
    try:
        alpha = float(text)
    except ValueError:
        raise ConfigError(f"{setting}={text} is not a number; give one from 0 to 1") from None
    if not math.isfinite(alpha) or not (extrapolate or 0.0 <= alpha <= 1.0):
        raise ConfigError(
            f"{setting}={text} lies outside 0..1; 0 is the base model and 1 the tuned one, and "
            "beyond them lies what only --extrapolate allows"
        )
    return alpha


def parse_alphas(
    words: list[str], extrapolate: bool = False
) -> tuple[list[float], list[tuple[str, float]]]:
    """Return the alphas in `alpha`, sorted and distinct, and its rules `regex=value`.

    Raises:
        ConfigError: A word is neither.
    """
    alphas: set[float] = set()
    rules: list[tuple[str, float]] = []
    for word in words:
        pattern, equals, value = str(word).rpartition("=")
        if equals:
            rules.append((pattern, parse_alpha(value, f"alpha={pattern}", extrapolate)))
        else:
            alphas.add(parse_alpha(value, "alpha", extrapolate))
    return sorted(alphas), rules


def parse_depth(text: str | None, extrapolate: bool = False) -> tuple[float, float] | None:
    """Return the alphas `first:last` of a schedule over depth; None stays None.

    Raises:
        ConfigError: The text is not two alphas.
    """
    if text is None:
        return None
    words = text.split(":")
    if len(words) != 2:
        raise ConfigError(f"alpha_depth={text} is not first:last, e.g. 0:1")
    first, last = (parse_alpha(word, "alpha_depth", extrapolate) for word in words)
    return first, last


def parse_sweep(parts: list[str], extrapolate: bool = False) -> list[float]:
    """Return the alphas of a sweep: `["0:1:0.25"]` or `["0", "0.5", "1"]`, ascending, each once.

    Raises:
        ConfigError: A part is not a number from 0 to 1, or a range is not start:stop:step.
    """
    alphas: set[float] = set()
    for part in parts:
        words = str(part).split(":")
        if len(words) == 1:
            alphas.add(parse_alpha(words[0], "sweep", extrapolate))
            continue
        if len(words) != 3:
            raise ConfigError(f"sweep={part} is not start:stop:step, e.g. 0:1:0.25")
        start, stop = (parse_alpha(word, "sweep", extrapolate) for word in words[:2])
        step = parse_alpha(words[2], "sweep step", extrapolate)
        if step <= 0 or stop < start:
            raise ConfigError(f"sweep={part}: stop must not be below start, and step be above 0")
        # Rounded, so that 3 steps of 0.1 are 0.3; a last step of rounding error still counts.
        count = int((stop - start) / step + 1e-9)
        alphas.update(round(start + i * step, 9) for i in range(count + 1))
    return sorted(alphas)
