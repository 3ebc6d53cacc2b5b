"""theta(alpha) of two models' files, written into a new file piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from clic.patching.interpolation import blend, blended, check_names, equal, mixed
from clic.patching.tensor_files import CHUNK, Layout, TensorFiles, new_tensors, spans


def write_blend(
    base: TensorFiles, tuned: TensorFiles, alphas: Mapping[str, float], path: Path
) -> None:
    """Write theta(alpha) of two models as a safetensors file.

    Only a few pieces of a megabyte or two are in memory at a time, however large the models are.
    The file is byte for byte the one that `interpolate` and `save_file` would make.

    Args:
        base: Tensors of alpha 0.
        tuned: Tensors of alpha 1.
        alphas: Each tensor's alpha.
        path: The file to write.

    Raises:
        ModelError: The models do not fit, or contain NaN.
    """
    layout = check_fit(base, tuned)
    with one_thread(), new_tensors(path, layout) as writer:
        for name in writer.names:
            write_tensor(name, base, tuned, alphas[name], writer)


def check_fit(base: TensorFiles, tuned: TensorFiles) -> dict[str, Layout]:
    """Return the layout of interpolated models; raise `ModelError` if the two do not fit."""
    check_names(base.layout, tuned.layout)
    return {name: blended(name, base.layout[name], tuned.layout[name]) for name in base.layout}


class TensorSink(Protocol):
    """Accepts tensors in pieces: a new file, or a model in memory."""

    def write(self, name: str, start: int, values: Tensor) -> None:
        """Write the elements of a tensor from `start` on."""


def write_tensor(
    name: str, base: TensorFiles, tuned: TensorFiles, alpha: float, writer: TensorSink
) -> None:
    """Write one tensor of theta(alpha), in pieces if it is large."""
    layout, origins = base.layout[name], (base.path_of(name), tuned.path_of(name))
    if len(list(spans(layout.numel))) <= 1 or not layout.dtype.is_floating_point:
        writer.write(name, 0, blend(name, base.whole(name), tuned.whole(name), alpha, origins))
        return
    if alpha != 1.0 and _copy_equal(name, base, tuned, writer):
        return
    room = torch.empty(2, CHUNK)  # allocating pages for every piece would cost as much as the sums
    for start, stop in spans(layout.numel):
        pieces = base.chunk(name, start, stop), tuned.chunk(name, start, stop)
        writer.write(name, start, mixed(name, *pieces, alpha, origins, room))


def _copy_equal(name: str, base: TensorFiles, tuned: TensorFiles, writer: TensorSink) -> bool:
    """Copy a tensor that is equal in both models; return False at the first difference.

    Tensors that were not trained keep their bits, which the rounding of the formula would change.
    """
    dtype = torch.promote_types(base.layout[name].dtype, tuned.layout[name].dtype)
    for start, stop in spans(base.layout[name].numel):
        first = base.chunk(name, start, stop)
        if not equal(first, tuned.chunk(name, start, stop)):
            return False
        writer.write(name, start, first.to(dtype))
    return True


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: pieces that fit the cache gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
