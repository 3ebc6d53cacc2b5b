"""A model card: the README.md that the hub shows for a model, made from its folder and its run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from clic import models, runs
from clic.errors import DataError
from clic.evaluation.report import formats, result_files
from clic.evaluation.report.report import Report
from clic.patching.folders import RECORD_FILE

CARD_FILE = "README.md"
LIBRARIES = {None: "open_clip", "hf": "transformers", "onnx": "onnx"}
PAPERS = {
    "clic": ("Peleg, Singh, Hein. Advancing Compositional Awareness in CLIP with Efficient "
             "Fine-Tuning", "2505.24424"),
    "clove": ("Castro, Ziai, Saluja, Yuan, Mihalcea. CLoVe: Encoding Compositional Language in "
              "Contrastive Vision-Language Models", "2402.15021"),
    "negclip": ("Yuksekgonul, Bianchi, Kalluri, Jurafsky, Zou. When and why vision-language models "
                "behave like bags-of-words, and what to do about it?", "2210.01936"),
    "patching": ("Wortsman et al. Robust fine-tuning of zero-shot models", "2109.01903"),
}  # fmt: skip
"""Papers by the part of a run that they are cited for: authors and title, and arXiv number."""
SHOWN = (
    "model.train", "loss.composite", "loss.single", "sampling.kinds", "captions.single_negative",
    "optim.lr", "optim.schedule", "train.batch_size", "train.epochs", "train.max_steps", "seed",
)  # fmt: skip


def read_results(name: str | None) -> list[Report]:
    """Return the reports in a file written by `clic-eval --json`; none without a name.

    Raises:
        DataError: The file is missing or is not a report.
    """
    return [] if name is None else result_files.load(name, with_rows=False)


def text(
    model: Path, to: str | None, reports: Sequence[Report] = (), out: Path | None = None
) -> str:
    """Return the card of a patched model.

    Args:
        model: Its open_clip folder, with the record of the patch.
        to: Format that the model will be written in: None (open_clip's), `hf` or `onnx`.
        reports: Reports of the same weights.
        out: Where the folder will be moved to, if anywhere.

    Raises:
        DataError: A report is about different weights.
    """
    record = json.loads((model / RECORD_FILE).read_text(encoding="utf-8"))
    clip, out = models.create(str(model)), out or model
    identity = models.identity(clip)
    for report in reports:
        if report.model.get("weights_sha256") != identity["weights_sha256"]:
            raise DataError(
                f"results: the report of {report.name} is of other weights than {out} would have; "
                f"write it without --card, evaluate it (clic-eval --model {out} --json FILE) and "
                "give that report"
            )
    settings = _settings(record["tuned"])
    lines = [*_front(to, record), *_about(out.name, record, identity), *_use(to, clip)]
    lines += [*_recipe(record, settings), *_results(reports), *_end(record, settings)]
    return "\n".join(lines) + "\n"


def write(model: Path, card: str) -> None:
    """Write a card into a model's folder.

    Raises:
        ConfigError: The card cannot be written.
    """
    with models.writing(model):
        (model / CARD_FILE).write_text(card, encoding="utf-8")


def _settings(tuned: str) -> dict[str, Any]:
    """Return the settings of the run that a tuned model comes from; empty if there is none."""
    path = Path(tuned.removeprefix("local-dir:"))
    for folder in (path, path.parent, path.parent.parent):
        file = folder / runs.CONFIG_FILE
        if file.is_file():
            content: Any = OmegaConf.to_container(OmegaConf.load(file))
            return content
    return {}


def _front(to: str | None, record: dict[str, Any]) -> Iterator[str]:
    yield from ("---", f"library_name: {LIBRARIES[to]}")
    yield "pipeline_tag: zero-shot-image-classification"
    yield "license: other  # the base's; state it"
    if record["base"].startswith("hf-hub:"):
        yield f"base_model: {record['base'].removeprefix('hf-hub:')}"
    yield from ("tags:", "- clip", "- compositionality", "- clic", "---", "")


def _about(name: str, record: dict[str, Any], identity: dict[str, Any]) -> Iterator[str]:
    alpha = record.get("alpha")
    between = f"alpha {alpha:g}" if isinstance(alpha, (int, float)) else "an alpha for each part"
    yield from (f"# {name}", "")
    yield (
        f"A CLIP-like model fine-tuned for composition (who does what to whom, what belongs to "
        f"what), from `{_short(record['base'])}`: weights between the base (alpha 0) and the "
        f"fine-tuned model (alpha 1) at {between}."
    )
    yield ""
    yield (
        f"{identity['parameters']:,} parameters, images of {identity['image_size']} px, "
        f"{identity['context_length']} tokens, {identity['activation']}. SHA-256 of the weights: "
        f"`{identity['weights_sha256']}`."
    )
    yield ""


def _short(name: str) -> str:
    """Return a model's name without its parent folders, which are private to the author."""
    return Path(name.removeprefix("local-dir:")).name if "/" in name and ":" not in name else name


def _use(to: str | None, clip: models.ClipModel) -> list[str]:
    kind = "SiglipModel" if getattr(clip.model, "logit_bias", None) is not None else "CLIPModel"
    code = {
        None: ["import open_clip", "",
               'model, preprocess = open_clip.create_model_from_pretrained("hf-hub:ORG/NAME")',
               'tokenizer = open_clip.get_tokenizer("hf-hub:ORG/NAME")'],
        "hf": [f"from transformers import AutoProcessor, {kind}", "",
               f'model = {kind}.from_pretrained("ORG/NAME")',
               'processor = AutoProcessor.from_pretrained("ORG/NAME")'],
        "onnx": ["import onnxruntime", "",
                 'image = onnxruntime.InferenceSession("image.onnx")  # inputs: clic_onnx.json',
                 'text = onnxruntime.InferenceSession("text.onnx")'],
    }[to]  # fmt: skip
    return ["## Use", "", "```python", *code, "```", ""]


def _recipe(record: dict[str, Any], settings: dict[str, Any]) -> Iterator[str]:
    yield from ("## Recipe", "", "| | |", "|---|---|", f"| base | `{_short(record['base'])}` |")
    if settings.get("name"):
        yield f"| experiment of clic | `{settings['name']}` |"
    for name in SHOWN:
        value: Any = settings
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            yield f"| `{name}` | `{value}` |"
    for end in ("base", "tuned"):
        yield f"| SHA-256 of the {end} file | `{record[f'{end}_file_sha256']}` |"
    if record.get("commit"):
        yield f"| commit of clic | `{record['commit']}` |"
    yield ""


def _results(reports: Sequence[Report]) -> list[str]:
    if not reports:
        return ["## Results", "", "None given: `clic-eval --json FILE`, then `--results FILE`.", ""]
    body = formats.markdown(reports).splitlines()[2:]  # without its own heading
    return ["## Results", "", *(f"#{li}" if li.startswith("##") else li for li in body), ""]


def _end(record: dict[str, Any], settings: dict[str, Any]) -> Iterator[str]:
    yield from ("## Licence", "")
    yield (
        f"The licence of the base, `{_short(record['base'])}`, holds for these weights, and that "
        "of the training data for their use. State both above."
    )
    yield from ("", "## Citation", "")
    for name in cited(settings, record.get("alpha")):
        title, number = PAPERS[name]
        yield f"- {title}. [arXiv {number}](https://arxiv.org/abs/{number})"


def cited(settings: dict[str, Any], alpha: float | None) -> list[str]:
    """Return the entries of `PAPERS` that a run's settings, and an alpha, call for."""
    loss, captions = settings.get("loss", {}), settings.get("captions", {})
    kinds = settings.get("sampling", {}).get("kinds")
    found = []
    if loss.get("composite") == "clic" and kinds in ("alternate", "composite"):
        found.append("clic")
    if kinds == "single" and str(loss.get("single")).endswith("_negatives"):
        found.append("clove" if captions.get("single_negative") == "replace" else "negclip")
    return [*found, *(["patching"] if alpha not in (0, 1) else [])]
