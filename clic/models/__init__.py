"""Models of open_clip and Hugging Face: from a name to a `ClipModel`, its features or a folder.

Read `source` (what a name means), `loading` (building it), `freezing` and `towers` (training it;
`depths` knows a tower's layers, `adapters` puts LoRA into them), `encoder` (using it),
`text_encoder` and `pooled_towers` (how its towers run), `saving` and `description`;
then the formats: `hugging_face` (with `siglip`), `exporting` (its inverse, with `siglip_writing`),
`onnx_writing`, `weight_files`, and `trust` for files that could run code; `families` has what
open_clip does not know about some, and `stretching` allows a longer context and larger images.
"""

from clic.models.adapters import Adapters
from clic.models.depths import VISION_PREFIX, Tower, towers_of
from clic.models.freezing import (
    evaluation_mode,
    freeze,
    reached,
    set_mode,
    set_trainable,
)
from clic.models.loading import ClipModel, Preprocess, build, create, tokenizer_of
from clic.models.pooled_towers import PooledImages, PooledTexts
from clic.models.saving import identity, save, weights_sha256, whole_folder, write_files, writing
from clic.models.source import INCLUDED, PACKAGED, TEXT_TOWER, ModelSource, filled, resolve
from clic.models.stretching import resize_images, stretch
from clic.models.text_encoder import TextEncoder, TextPlanner
from clic.models.towers import FeatureExtractor, LossModule, enable_grad_checkpointing
from clic.models.weight_files import check_numbers
from clic.parts import Trained

__all__ = [
    "INCLUDED",
    "PACKAGED",
    "TEXT_TOWER",
    "VISION_PREFIX",
    "Adapters",
    "ClipModel",
    "FeatureExtractor",
    "LossModule",
    "ModelSource",
    "PooledImages",
    "PooledTexts",
    "Preprocess",
    "TextEncoder",
    "TextPlanner",
    "Tower",
    "Trained",
    "build",
    "check_numbers",
    "create",
    "enable_grad_checkpointing",
    "evaluation_mode",
    "filled",
    "freeze",
    "identity",
    "reached",
    "resize_images",
    "resolve",
    "save",
    "set_mode",
    "set_trainable",
    "stretch",
    "tokenizer_of",
    "towers_of",
    "weights_sha256",
    "whole_folder",
    "write_files",
    "writing",
]
