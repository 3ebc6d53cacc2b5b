"""`clic-eval --probe shapes|FILE`: whether the image tower encodes what captions state."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from clic.cli.common import make_console
from clic.config.eval_settings import EvalConfig, check_unused
from clic.errors import ConfigError
from clic.io.files import check_writable

if TYPE_CHECKING:
    from rich.table import Table

    from clic.evaluation.linear_probe import ProbeData, ProbeResult

OWN = (
    "probe", "model", "json", "seed", "batch_size", "workers", "device", "precision", "cache",
    "cache_dir", "cache_gb",
)  # fmt: skip
"""Settings that have an effect with `--probe`."""
MANY = 12
"""With more questions than this, the terminal shows only families."""


def print_probes(settings: EvalConfig) -> None:
    """Probe each model's image tower, print the results, and write them as JSON if asked for.

    Raises:
        ConfigError: Another setting is given that would have no effect, or no model is named.
        DataError: The labels are invalid, or too few.
    """
    from clic.evaluation import probe_data

    others = [field.name for field in fields(EvalConfig) if field.name not in OWN]
    check_unused(settings, others, " with --probe")
    check_writable(settings.json)
    if not settings.model:
        raise ConfigError("--probe needs a model; give --model M")
    assert settings.probe is not None
    data = probe_data.load_probe(settings.probe, settings.seed)
    found = {name: _probe(settings, name, data) for name in settings.model}
    if settings.json is not None:  # first, so that a closed terminal does not lose it
        from clic.evaluation.report import result_files

        result_files.write_object(settings.json, _content(settings, data, found))
    console = make_console()
    for name, results in found.items():
        console.print(_table(name, data, results))
    console.print(_note(data), markup=False, highlight=False)
    if settings.json is not None:
        print(f"wrote {settings.json}")


def _probe(settings: EvalConfig, name: str, data: ProbeData) -> list[ProbeResult]:
    import torch

    from clic import evaluation
    from clic.evaluation import linear_probe, runner
    from clic.evaluation.encode.distributed_encoding import EncodingOptions
    from clic.evaluation.encode.encoding import encode_images
    from clic.models import encoder

    loaded = encoder.load(
        name,
        device=settings.device,
        precision=settings.precision,
        batch_size=settings.batch_size,
    )
    workers = runner.decoding_threads() if settings.workers is None else settings.workers
    cache = evaluation.FeatureCache.of(settings)
    options = EncodingOptions(settings.batch_size, workers, True, False, cache)
    with torch.no_grad():
        encoded = encode_images(loaded, data.images, options, allow_broken=False)
    return linear_probe.run_probes(encoded.features, data, settings.seed)


def _content(
    settings: EvalConfig, data: ProbeData, found: dict[str, list[ProbeResult]]
) -> dict[str, Any]:
    from clic import provenance

    return {
        "probe": settings.probe,
        "images": len(data.images),
        "seed": settings.seed,
        "how": _note(data),
        "models": {name: [asdict(one) for one in results] for name, results in found.items()},
        "provenance": provenance.code(),
    }


def _table(name: str, data: ProbeData, results: list[ProbeResult]) -> Table:
    from clic.evaluation.report.terminal_tables import new_table

    families = [one for one in results if one.is_family]
    shown = families if len(results) > MANY and families else results
    hidden = len(results) - len(shown)
    below = f"{hidden} questions: in the file (--json)" if hidden else ""
    table = new_table(f"{data.name}: {name}", "question", below)
    for head in ("right", "95 %", "chance", "unbound", "n"):
        table.add_column(head, justify="right", no_wrap=True)
    for one in shown:
        unbound = "-" if one.unbound is None else f"{one.unbound:.0f}"
        ends = f"[{one.low:.1f}, {one.high:.1f}]"
        table.add_row(
            one.name, f"{one.right:.1f}", ends, f"{one.chance:.1f}", unbound, f"{one.n:,}"
        )
    return table


def _note(data: ProbeData) -> str:
    from clic.evaluation.linear_probe import FOLDS, L2

    how = (
        f"{FOLDS}-fold cross-validation" if data.test is None else "fitted on train, asked on test"
    )
    return (
        f"Percent right of a logistic regression (L2 {L2:g}) on the image features, {how}; in "
        "brackets Wilson's 95 % interval over images. Chance: the commonest answer. Unbound: who "
        "knows which colours are there and not whose they are. What a linear probe does not find "
        "may still be there in another form; what it finds, a text tower of this space could use."
    )
