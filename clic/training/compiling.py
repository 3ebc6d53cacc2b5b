"""Compiled towers (`train.compile`): what they need, what is compiled, and how it can fail."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from clic import distributed
from clic.errors import ConfigError
from clic.io.terminal import say
from clic.models import FeatureExtractor

COMPILER: dict[str, Any] = {"backend": "inductor", "options": {"fallback_random": True}}
"""Arguments of `torch.compile`. Random numbers are those of eager mode: the two passes over a chunk
must draw the same ones. CUDA graphs stay off, as packed captions have new shapes every step."""
MOST_KINDS = 64
"""Most variants of a layer to compile, by shapes and by what trains; torch would stop at eight."""
OFF = "or leave train.compile out"


class CompilationError(ConfigError):
    """The compiler failed, or was killed."""


def check_compiler(device: torch.device) -> None:
    """Refuse `train.compile` if the device's compiler is missing.

    Raises:
        ConfigError: It is missing; the message names what to install.
    """
    if device.type == "cuda":
        if find_spec("triton") is None:
            raise ConfigError(
                f"train.compile=true needs the package triton on a GPU; pip install triton, {OFF}"
            )
        choices, variable = ["gcc", "clang", "cc"], "CC"
    else:
        choices, variable = ["clang++" if sys.platform == "darwin" else "g++"], "CXX"
    choices = os.environ.get(variable, "").split()[:1] or choices
    if not any(map(shutil.which, choices)):
        raise ConfigError(
            f"train.compile=true needs a compiler on the {device.type}, and "
            f"{' or '.join(choices)} is not found; install one, name another with {variable}=..., "
            f"{OFF}"
        )
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise ConfigError(
            f"train.compile=true needs Python's headers, and there is no {header}; install them "
            f"(python3-dev, python3-devel), {OFF}"
        )


def compile_towers(*extractors: FeatureExtractor) -> None:
    """Compile the layers of towers, and announce that the first steps will be slow."""
    import torch._dynamo.config

    torch._dynamo.config.recompile_limit = MOST_KINDS
    # Layers are compiled one by one, so gradients are ready as early as in eager mode. Splitting
    # graphs at DDP's buckets would gain nothing, and does not work with these graphs.
    torch._dynamo.config.optimize_ddp = False
    for extractor in extractors:
        extractor.compile_layers(**COMPILER)
    if distributed.is_main():
        say("train.compile=true: the first step of each kind of batch waits a minute or more")


def failure(error: RuntimeError) -> CompilationError | None:
    """Return the error to raise for one that came from compiling, or None for any other."""
    from torch._dynamo.exc import TorchDynamoException

    if not isinstance(error, TorchDynamoException):
        return None
    reason = " ".join(str(error).strip().splitlines()[:2])  # the backend and its message
    return CompilationError(
        f"train.compile=true: torch could not compile this model ({reason}); leave it out"
    )
