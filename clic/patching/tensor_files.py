"""safetensors files read and written in pieces, so that no model is in memory as a whole.

The layout is that of the safetensors library: eight bytes with the header's length, the header as
JSON, then the tensors by decreasing alignment and increasing name. A file written here is byte for
byte the one that `safetensors.torch.save_file` writes for the same tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clic.errors import ModelError

CHUNK = 1 << 18
"""Elements at a time: 1 MiB of fp32, so that a piece stays in the processor's cache."""
DTYPES = {
    "U64": torch.uint64, "I64": torch.int64, "F64": torch.float64, "F32": torch.float32,
    "U32": torch.uint32, "I32": torch.int32, "BF16": torch.bfloat16, "F16": torch.float16,
    "U16": torch.uint16, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip
"""The types that a weights file may contain, in the order in which safetensors writes them."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ORDER = {dtype: place for place, dtype in enumerate(DTYPES.values())}


class Layout(NamedTuple):
    """Type and shape of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.numel * self.dtype.itemsize


class _Place(NamedTuple):
    """Where a tensor's bytes begin: the number of the file, and the offset in it."""

    file: int
    offset: int


def spans(count: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of consecutive pieces of at most `CHUNK` elements."""
    return ((start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))


class TensorFiles:
    """The tensors of one or more safetensors files, read in pieces.

    The files are hashed while they are read, in a single pass if the tensors are read in file
    order.

    Attributes:
        paths: The files.
        layout: Type and shape of each tensor, by name.
        hashing: Whether to hash while reading; switch it off if the hash is not needed.
    """

    def __init__(self, paths: Sequence[Path], stack: ExitStack) -> None:
        self.paths = list(paths)
        self.layout: dict[str, Layout] = {}
        self.hashing = True
        self._places: dict[str, _Place] = {}
        self._files = [stack.enter_context(path.open("rb", buffering=0)) for path in paths]
        self._sizes = [path.stat().st_size for path in paths]
        self._hashes = [hashlib.sha256() for _ in paths]
        self._hashed = [0 for _ in paths]
        self._buffer = torch.empty(CHUNK * 8, dtype=torch.uint8)
        for number in range(len(paths)):
            self._read_header(number)

    def chunk(self, name: str, start: int, stop: int) -> Tensor:
        """Return the elements `start` to `stop` of a tensor, [stop - start].

        They lie in a buffer that the next call overwrites; at most `CHUNK` at a time.
        """
        layout = self.layout[name]
        size = layout.dtype.itemsize
        raw = self._buffer[: (stop - start) * size]
        self._fill(raw, self._places[name], start * size)
        return raw.view(layout.dtype)

    def whole(self, name: str) -> Tensor:
        """Return a whole tensor, in its own memory."""
        layout = self.layout[name]
        raw = torch.empty(layout.size, dtype=torch.uint8)
        self._fill(raw, self._places[name], 0)
        return raw.view(layout.dtype).reshape(layout.shape)

    def path_of(self, name: str) -> Path:
        """Return the file that contains a tensor."""
        return self.paths[self._places[name].file]

    def sha256(self) -> str | dict[str, str]:
        """Return the file's SHA-256, or that of each file by name if there are several."""
        self.hashing = True
        for number, size in enumerate(self._sizes):
            while self._hashed[number] < size:
                rest = min(size - self._hashed[number], len(self._buffer))
                self._fill(self._buffer[:rest], _Place(number, self._hashed[number]), 0)
        found = {path.name: h.hexdigest() for path, h in zip(self.paths, self._hashes, strict=True)}
        return found if len(found) > 1 else next(iter(found.values()))

    def _fill(self, raw: Tensor, place: _Place, start: int) -> None:
        """Read bytes into a uint8 tensor, and hash those that directly follow the hashed part."""
        view, offset, number = raw.numpy().data, place.offset + start, place.file
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._files[number].fileno(), [view[done:]], offset + done)
            except OSError as error:
                raise ModelError(
                    f"{self.paths[number]} cannot be read ({error.strerror}); copy it again"
                ) from error
            if count == 0:
                raise ModelError(
                    f"{self.paths[number]} became shorter while it was read; get it again"
                )
            done += count
        hashed = self._hashed[number]
        if self.hashing and offset <= hashed < offset + len(view):
            self._hashes[number].update(view[hashed - offset :])
            self._hashed[number] = offset + len(view)

    def _read_header(self, number: int) -> None:
        """Read the header of a file, once the safetensors library has found it valid."""
        from safetensors import SafetensorError, safe_open

        path = self.paths[number]
        try:
            with safe_open(str(path), framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path} cannot be read ({error}); copy or make it again") from error
        start = torch.empty(8, dtype=torch.uint8)
        self._fill(start, _Place(number, 0), 0)
        length = int.from_bytes(bytes(start.tolist()), "little")
        text = torch.empty(length, dtype=torch.uint8)
        self._fill(text, _Place(number, 8), 0)
        header = json.loads(text.numpy().tobytes())
        for name, entry in header.items():
            if name != "__metadata__":
                self._add(number, 8 + length, name, entry)

    def _add(self, number: int, base: int, name: str, entry: Mapping[str, Any]) -> None:
        path = self.paths[number]
        if entry["dtype"] not in DTYPES:
            raise ModelError(
                f"{path}: tensor {name!r} has type {entry['dtype']}, which is not patched; save "
                f"the model in one of {', '.join(DTYPES)}"
            )
        if name in self.layout:
            raise ModelError(f"{path}: tensor {name!r} is in another file of the model, too")
        self.layout[name] = Layout(DTYPES[entry["dtype"]], tuple(entry["shape"]))
        self._places[name] = _Place(number, base + entry["data_offsets"][0])


@contextmanager
def open_tensors(paths: Sequence[Path]) -> Iterator[TensorFiles]:
    """Open the files of one model for reading.

    Raises:
        ModelError: A file cannot be read, or two of them contain a tensor of the same name.
    """
    with ExitStack() as stack:
        try:
            files = TensorFiles(paths, stack)
        except OSError as error:
            raise ModelError(
                f"{error.filename or paths[0]} cannot be read ({error.strerror}); copy or make it "
                "again"
            ) from error
        yield files


class TensorWriter:
    """A new safetensors file, written in pieces, preferably in the order of `names`.

    Attributes:
        names: The tensors in file order.
    """

    def __init__(self, path: Path, layout: Mapping[str, Layout], stack: ExitStack) -> None:
        self.names = sorted(layout, key=lambda name: (_ORDER[layout[name].dtype], name))
        sizes = [layout[name].size for name in self.names]
        ends = list(accumulate(sizes, initial=0))
        entries = {
            name: {
                "dtype": _NAMES[layout[name].dtype],
                "shape": list(layout[name].shape),
                "data_offsets": list(bounds),
            }
            for name, bounds in zip(self.names, pairwise(ends), strict=True)
        }
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        first = 8 + len(text)
        self._offsets = {n: first + end for n, end in zip(self.names, ends[:-1], strict=True)}
        self._file = stack.enter_context(path.open("wb"))
        if hasattr(os, "posix_fallocate"):  # so a full disk fails before the first piece
            os.posix_fallocate(self._file.fileno(), 0, first + ends[-1])
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._at = 8 + len(text)

    def write(self, name: str, start: int, values: Tensor) -> None:
        """Write elements from `start` on; `values` has the tensor's type."""
        offset = self._offsets[name] + start * values.element_size()
        if offset != self._at:
            self._file.seek(offset)
        data = values.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        self._file.write(data.data)
        self._at = offset + data.nbytes


@contextmanager
def new_tensors(path: Path, layout: Mapping[str, Layout]) -> Iterator[TensorWriter]:
    """Open a new file for tensors of this layout; it is complete once all of them are written."""
    with ExitStack() as stack:
        yield TensorWriter(path, layout, stack)
