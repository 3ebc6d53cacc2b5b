"""An open_clip model as a Hugging Face folder, for `CLIPModel` or `SiglipModel` of transformers.

The inverse of `hugging_face`, which reads the folder back bit for bit; transformers computes the
same features up to rounding. transformers is not needed for CLIP. A model that fits neither class
is refused, and the error names the setting that has no place there. `siglip_writing` has the parts
that are specific to SigLIP.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from clic.errors import ModelError
from clic.models import hugging_face as hf
from clic.models import hugging_face_files as files
from clic.models import siglip, siglip_writing
from clic.models.loading import ClipModel, Preprocess, create
from clic.models.saving import whole_folder
from clic.models.source import CONFIG_FILE, ModelSource, filled

START_WORD, END_WORD = "<|startoftext|>", "<|endoftext|>"
_SIZES = {"layers", "width", "heads", "mlp_width", "norm_kwargs"}
_HELD = {
    "vision_cfg": {*_SIZES, "patch_size", "image_size"},
    "text_cfg": {*_SIZES, "context_length", "vocab_size", "pool_type", "eos_id", "pad_id"},
    "": {"embed_dim", "quick_gelu", "custom_text", "vision_cfg", "text_cfg"},
}
"""Entries of an architecture that `CLIPModel` has a place for; others must have their default."""
RESIZING = ("shortest", "squash")
"""Resize modes that transformers' image processor for CLIP supports."""
_TEXT_PREFIX = "text."  # of open_clip's CustomTextCLIP


def export(clip: ClipModel, folder: Path, records: Sequence[Path] = ()) -> Path:
    """Write a model as a Hugging Face folder.

    The folder appears complete or not at all, replaces an earlier one, and is returned. It contains
    config.json, model.safetensors, and the files of the tokenizer and of the preprocessing.

    Args:
        clip: A model with a plain vision transformer and CLIP's own text tower and tokenizer, or a
            SigLIP.
        folder: The folder to write.
        records: Files to copy into the folder.

    Raises:
        ConfigError: The folder cannot be written.
        ModelError: Neither `CLIPModel` nor `SiglipModel` can represent the model.
    """
    from safetensors.torch import save_file

    check_fits(clip.source)
    is_siglip = siglip_writing.is_one(clip.source.architecture)
    state = clip.model.state_dict()
    tensors = siglip.renamed(state) if is_siglip else renamed(state)
    written = {
        files.CONFIG_FILE: (
            siglip_writing.config(clip) if is_siglip else config(clip.source.architecture)
        ),
        files.PREPROCESSOR_FILE: _preprocessor(clip.preprocess, is_siglip),
        **({} if is_siglip else tokenizer_files(clip)),
    }
    with whole_folder(folder, folder.parent) as new:
        if is_siglip:
            siglip_writing.write_tokenizer(clip, new)
        save_file(tensors, new / files.WEIGHTS_FILE, metadata={"format": "pt"})
        for name, content in written.items():
            text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
            (new / name).write_text(text, encoding="utf-8")
        shutil.copymode(new / files.CONFIG_FILE, new / files.WEIGHTS_FILE)
        for record in records:
            shutil.copyfile(record, new / record.name)
    return folder


def convert(folder: Path, records: Sequence[str] = ()) -> Path:
    """Replace an open_clip folder with a Hugging Face folder of the same model.

    `records` names the files of the folder that are kept. See `export` for the errors; they
    leave the open_clip folder unchanged.
    """
    kept = [folder / name for name in records if (folder / name).is_file()]
    return export(create(str(folder)), folder, kept)


def check_fits(source: ModelSource) -> None:
    """Refuse a model that neither `CLIPModel` nor `SiglipModel` of transformers can represent.

    Raises:
        ModelError: An entry of its architecture, or of its preprocessing, has no place there.
    """
    if source.hugging_face_folder is not None:
        return  # it came from one
    is_siglip = siglip_writing.is_one(source.architecture)
    _check_resizing(source, is_siglip)
    if is_siglip:
        siglip_writing.check_fits(source.name, source.architecture)
        return
    found, plain = filled(source.architecture), filled({})
    towers = {"vision_cfg": found["vision_cfg"], "text_cfg": found["text_cfg"], "": found}
    for part, entries in towers.items():
        default = plain[part] if part else plain
        for name, value in entries.items():
            held = name in _HELD[part] or not value or value == default.get(name)
            if not held or _odd(name, value):
                raise ModelError(
                    f"{source.name} has {part + '.' if part else ''}{name}={value}, for which "
                    "transformers' CLIPModel has no place, so it cannot be written with --to hf; "
                    "keep the open_clip folder"
                )


def _check_resizing(source: ModelSource, is_siglip: bool) -> None:
    """Refuse a folder whose resize mode transformers does not support."""
    path = None if source.folder is None else source.folder / CONFIG_FILE
    if path is None or not path.is_file():
        return  # every tag of open_clip has a supported mode
    mode = files.read_json(path).get("preprocess_cfg", {}).get("resize_mode", "shortest")
    known = siglip_writing.RESIZING if is_siglip else RESIZING
    if mode not in known:
        kind = "SigLIP" if is_siglip else "CLIP"
        raise ModelError(
            f"{source.name} prepares images with resize_mode={mode}, which {kind}'s preprocessing "
            "of transformers does not know, so it cannot be written with --to hf; keep the "
            "open_clip folder"
        )


def _odd(name: str, value: Any) -> bool:
    """Return whether `CLIPModel` has a place for an entry, but not for this value."""
    if name in ("layers", "image_size", "patch_size"):  # a ResNet's layers are a list
        return not isinstance(value, int)
    if name == "pool_type":
        return value not in ("argmax", "eos", "tok")
    if name == "norm_kwargs":
        return bool(set(value or {}) - {"eps"})
    return name == "vocab_size" and value != hf.VOCABULARY


def config(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of config.json for an architecture of open_clip (`model_cfg`)."""
    full = filled(dict(architecture))
    vision, text = full["vision_cfg"], full["text_cfg"]
    common = {
        "hidden_act": "quick_gelu" if full["quick_gelu"] else "gelu",
        "projection_dim": full["embed_dim"],
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": full["embed_dim"],
        "text_config": {
            "model_type": "clip_text_model",
            **common,
            **_sizes(text),
            "max_position_embeddings": text["context_length"],
            "vocab_size": text["vocab_size"],
            "bos_token_id": hf.END - 1,
            # If open_clip pools at the highest id, that is the end-of-text token.
            "eos_token_id": text["eos_id"] if text["pool_type"] == "eos" else hf.END,
            "pad_token_id": hf.END,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            **common,
            **_sizes(vision),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "num_channels": 3,
        },
    }


def _sizes(tower: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hidden_size": tower["width"],
        "intermediate_size": tower["mlp_width"],
        "num_hidden_layers": tower["layers"],
        "num_attention_heads": tower["heads"],
        "layer_norm_eps": (tower["norm_kwargs"] or {}).get("eps", 1e-5),
    }


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return open_clip's state dict with the names and the layout of `CLIPModel`.

    Queries, keys and values become three tensors, projections are transposed; no value changes.

    Raises:
        ModelError: A tensor has no place there.
    """
    found: dict[str, Tensor] = {}
    single = {ours: theirs for theirs, ours in hf.SINGLE.items()}
    transposed = {ours: theirs for theirs, ours in hf.TRANSPOSED.items()}
    for name, value in state.items():
        own = name.removeprefix(_TEXT_PREFIX)
        value = value.detach().cpu()
        if own in single:
            found[single[own]] = value.reshape(()) if own == "logit_scale" else value
        elif own in transposed:
            found[transposed[own]] = value.T
        else:
            found.update(_inner(name, own, value))
    return {name: value.clone().contiguous() for name, value in found.items()}


def _inner(name: str, own: str, value: Tensor) -> dict[str, Tensor]:
    """Return the renamed tensors of a norm, or of a tensor in a block."""
    norms = {ours: theirs for theirs, ours in hf.NORMS.items()}
    blocks = {ours: theirs for theirs, ours in hf.BLOCK.items()}
    towers = {ours: theirs for theirs, ours in hf.TOWERS.items()}
    module, _, kind = own.rpartition(".")
    if module in norms:
        return {f"{norms[module]}.{kind}": value}
    tower, _, rest = own.partition(".resblocks.")
    number, _, inner = rest.partition(".")
    if tower in towers and number.isdecimal():
        block = f"{towers[tower]}.encoder.layers.{number}"
        layer, _, kind = inner.rpartition(".")
        if layer in blocks:
            return {f"{block}.{blocks[layer]}.{kind}": value}
        if inner in ("attn.in_proj_weight", "attn.in_proj_bias"):
            kind = inner.rpartition("_")[2]
            parts = zip("qkv", value.chunk(3), strict=True)
            return {f"{block}.self_attn.{part}_proj.{kind}": third for part, third in parts}
    raise ModelError(
        f"tensor {name!r} has no place in transformers' CLIPModel, so the model cannot be "
        "written with --to hf; keep the open_clip folder"
    )


def _preprocessor(preprocess: Preprocess, is_siglip: bool) -> dict[str, Any]:
    size, mode = preprocess.size, preprocess.resize_mode
    square = {"height": size, "width": size}
    numbers = {word: number for number, word in files.INTERPOLATION.items()}
    cut = {"do_center_crop": mode == "shortest", "crop_size": square}
    return {
        "image_processor_type": siglip_writing.PROCESSOR if is_siglip else "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size} if mode == "shortest" else square,
        "resample": numbers[preprocess.interpolation],
        **({} if is_siglip else cut),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def tokenizer_files(clip: ClipModel) -> dict[str, Any]:
    """Return the files of CLIP's tokenizer, made from open_clip's vocabulary."""
    from open_clip import SimpleTokenizer

    words: Any = clip.tokenizer
    if type(words) is not SimpleTokenizer:  # as the architecture states, unless it was changed
        raise ModelError(f"{clip.source.name}: --to needs CLIP's own tokenizer")
    merges = sorted(words.bpe_ranks, key=words.bpe_ranks.__getitem__)
    vocabulary = {word: number for word, number in words.encoder.items() if number < hf.END - 1}
    special = {"bos_token": START_WORD, "eos_token": END_WORD, "unk_token": END_WORD,
               "pad_token": END_WORD}  # fmt: skip
    return {
        "vocab.json": {**vocabulary, START_WORD: hf.END - 1, END_WORD: hf.END},
        "merges.txt": "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges),
        "special_tokens_map.json": special,
        files.TOKENIZER_FILE: {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": clip.context_length,
            "do_lower_case": True,
            **special,
        },
    }
