"""`clic-eval --describe MODEL [--against BASE]`: a model, and its differences from a base."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from clic.cli.common import WIDTH
from clic.config.eval_settings import EvalConfig, check_unused
from clic.errors import ConfigError
from clic.io.files import check_writable

OWN = ("describe", "against", "json")
"""Settings that have an effect with `--describe`."""
LABEL = 15
RESIZING = {
    "shortest": "shorter side resized, then the middle cut out",
    "squash": "both sides resized, aspect not kept",
    "longest": "longer side resized, then black bars",
}


def print_description(settings: EvalConfig) -> None:
    """Describe the model `settings.describe` on stdout, and as JSON if a file is named.

    Raises:
        ConfigError: Another setting is given that would have no effect.
        ModelError: A model does not exist, or its activation has to be specified.
    """
    if settings.describe is None:
        raise ConfigError(
            f"against={settings.against} has no effect without --describe MODEL; give both"
        )
    others = [field.name for field in fields(EvalConfig) if field.name not in OWN]
    check_unused(settings, others, " with --describe")
    check_writable(settings.json)
    content, lines = _described(settings.describe, settings.against)
    if settings.json is not None:  # first, so that a closed terminal does not lose it
        from clic.evaluation.report import result_files

        result_files.write_object(settings.json, content)
    print("\n".join(lines))
    if settings.json is not None:
        print(f"wrote {settings.json}")


def _described(name: str, against: str | None) -> tuple[dict[str, Any], list[str]]:
    from clic import models, provenance, runs
    from clic.models import description

    model = models.create(runs.source_of(name))
    found = description.describe(model)
    content: dict[str, Any] = {"model": {**found, "name": name}, "provenance": provenance.code()}
    lines = list(_model_lines(name, found))
    if against is not None:
        base = models.create(runs.source_of(against))
        changes = description.differences(model, base)
        content["base"] = {**description.describe(base), "name": against}
        content["differences"] = changes
        lines += ["", *_difference_lines(against, changes)]
    return content, lines


def _model_lines(name: str, found: dict[str, Any]) -> Iterator[str]:
    yield from _line("model", name)
    yield from _line("weights", _origin(found["source"], found["pretrained"]))
    yield from _line("", found["weights_sha256"])
    total = f"{found['parameters']:,} parameters"
    yield from _line("architecture", f"{total}, embedding {found['architecture']['embed_dim']}")
    for tower in ("vision", "text"):
        own = found[tower]
        yield from _line(f"{tower} tower", own["tower"])
        acting = ", ".join(own["activations"]) or "no activation module"
        yield from _line("", f"{own['parameters']:,} parameters, {acting}")
        yield from _line("", own["sha256"])
    bias = found["scalars"]["logit_bias"]
    scale = f"logit_scale {found['scalars']['logit_scale']:.4g} (exponentiated)"
    yield from _line("scalars", f"{scale}, logit_bias {'none' if bias is None else f'{bias:.4g}'}")
    image = found["preprocessing"]
    resizing = RESIZING.get(image["resize_mode"], image["resize_mode"])
    yield from _line("preprocessing", f"{image['size']} px, {image['interpolation']}: {resizing}")
    mean, std = (" ".join(f"{value:.4g}" for value in image[key]) for key in ("mean", "std"))
    yield from _line("", f"mean {mean}, std {std}")
    words = found["tokenizer"]
    known = "" if words["vocabulary"] is None else f" of {words['vocabulary']:,} tokens"
    yield from _line("tokenizer", f"{words['kind']}{known}")
    yield from _line("", words["sha256_of_fixed_texts"])
    yield from _line("context", f"{words['context_length']} tokens")


def _origin(source: str, pretrained: str | None) -> str:
    if pretrained is None:
        return f"{source}, random weights"
    return source if pretrained == "included" else f"{source}, {pretrained}"


def _difference_lines(against: str, changes: dict[str, Any]) -> Iterator[str]:
    yield from _line("against", against)
    for part in ("architecture", "preprocessing", "tokenizer", "scalars"):
        unequal = changes[part]
        yield from _line(part, "" if unequal else "the same")
        for entry, (own, other) in unequal.items():
            yield from _line("", f"{entry}: {_shown(own)}, there {_shown(other)}")
    for tower in ("vision", "text"):
        yield from _line(f"{tower} tower", _tower_words(changes[tower]))


def _tower_words(change: dict[str, Any]) -> str:
    if not change["changed"]:
        return f"the same: all {change['tensors']} tensors are equal bit for bit"
    relative = change["relative_change"]
    far = "no two of one shape" if relative is None else f"relative change {relative:.3g}"
    return f"differs: {change['changed']} of {change['tensors']} tensors, {far}"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return " ".join(map(_shown, value))
    text = "none" if value is None else str(value)
    return text if len(text) < 24 else f"{text[:12]}..."


def _line(label: str, value: str) -> list[str]:
    """Return `label  value` within 80 columns, with further lines aligned below the value."""
    wide = textwrap.TextWrapper(WIDTH - LABEL, break_on_hyphens=False, break_long_words=False)
    shown = wide.wrap(value) or [""]  # a path longer than a line stays whole, so it can be copied
    return [f"{label if n == 0 else '':{LABEL}}{part}".rstrip() for n, part in enumerate(shown)]
