"""Readers of columnar data: parquet files and Hugging Face datasets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from clic.data.packing.image_bytes import BUFFER, need
from clic.data.packing.items import Item
from clic.data.packing.readers.base import FormatReader, captions_of, choose_columns, files_below
from clic.data.shards.locating import is_pattern, matches
from clic.errors import ConfigError, DataError, did_you_mean


class Parquet(FormatReader):
    """Parquet: a file or a folder of files, with images as paths or as bytes."""

    NAME = "parquet"
    TAKES = ("image_root", "image_column", "caption_column")

    def open(self) -> None:
        arrow = need("pyarrow")
        need("pyarrow.parquet")
        path = self.path.absolute()
        if path.is_dir():
            self.paths = sorted(files_below(path, ".parquet"))
            if not self.paths:
                raise DataError(f"{path} has no .parquet file; name another folder or format")
        else:
            self.paths = matches(str(path)) if is_pattern(str(path)) else [path]
        first = self.paths[0]
        schema = _read_schema(first)
        self.image, self.captions, self.found = choose_columns(
            self.request, schema.names, str(first)
        )
        kind = schema.field(self.image).type
        if arrow.types.is_dictionary(kind):  # pandas' categories
            kind = kind.value_type
        self.by_path = bool(arrow.types.is_string(kind) or arrow.types.is_large_string(kind))
        root = self.find_root()
        self.found.append(root if self.by_path else "images in the file")
        for other in self.paths[1:]:
            if not {self.image, *self.captions} <= set(_read_schema(other).names):
                raise DataError(f"{other} lacks a column of {first}; pack it by itself")

    def default_root(self) -> Path:
        return self.path.absolute() if self.path.is_dir() else super().default_root()

    def files(self) -> list[Path]:
        return self.paths

    def items(self) -> Iterator[Item]:
        for path in self.paths:
            yield from self._file(path)

    def _file(self, path: Path) -> Iterator[Item]:
        import pyarrow
        from pyarrow.parquet import ParquetFile

        names = [*([self.image] if self.by_path else []), *self.captions]
        numbers = count()
        try:
            with ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
                for group in range(file.num_row_groups):
                    batches = file.iter_batches(1024, row_groups=[group], columns=names)
                    group_rows = (row for batch in batches for row in batch.to_pylist())
                    for at, row in enumerate(group_rows):
                        where = f"{path.name}:{next(numbers)}"
                        captions = [c for name in self.captions for c in captions_of(row[name])]
                        if self.by_path:
                            yield self.listed(str(row[self.image] or ""), where, captions)
                        else:
                            place = ("parquet", str(path), self.image, group, at, str(self.root))
                            yield Item(where, "", place, tuple(captions))
        except (OSError, pyarrow.ArrowException) as error:
            yield Item(path.name, reason=f"the rest cannot be read ({error})")


def _read_schema(path: Path) -> Any:
    import pyarrow
    from pyarrow.parquet import read_schema

    try:
        return read_schema(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet ({error})") from error


PREFIX = "hf:"
MARKS = ("dataset_dict.json", "state.json")
"""Files that `save_to_disk` writes into a folder."""


class HubDataset(FormatReader):
    """A dataset of the library datasets: `hf:NAME[:CONFIG]`, or a folder from save_to_disk."""

    NAME = "datasets"
    TAKES = ("image_column", "caption_column", "split")

    def open(self) -> None:
        self.data = open_dataset(self.source, self.request.split)
        self.image, self.captions, lines = choose_columns(
            self.request, self.data.column_names, self.source
        )
        split = self.data.split or self.request.split
        self.found = [*([f"split: {split}"] if split else []), *lines]

    def files(self) -> list[Path]:
        return []

    def items(self) -> Iterator[Item]:
        numbers = count()
        for batch in self.data.select_columns(list(self.captions)).iter(batch_size=1000):
            for values in zip(*(batch[name] for name in self.captions), strict=True):
                number, captions = next(numbers), tuple(c for v in values for c in captions_of(v))
                place = ("dataset", self.source, self.request.split, self.image, number)
                yield Item(f"{self.source}:{number}", "", place, captions)


def open_dataset(source: str, split: str | None) -> Any:
    """Return one split of a dataset, by default `train` if there are several.

    Raises:
        ConfigError: The split does not exist.
        DataError: The dataset cannot be loaded.
    """
    datasets = need("datasets")
    try:
        if source.startswith(PREFIX):
            name, _, config = source.removeprefix(PREFIX).partition(":")
            data = datasets.load_dataset(name, config or None)
        else:
            data = datasets.load_from_disk(source)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{source} cannot be loaded by datasets ({reason})") from error
    if not isinstance(data, dict):  # a DatasetDict is a dict
        if split is not None:
            raise ConfigError(f"--split {split} has no effect: {source} has no splits")
        return data
    wanted = split or ("train" if "train" in data or len(data) > 1 else next(iter(data)))
    if wanted not in data:
        hint = did_you_mean(wanted, data)
        raise ConfigError(
            f"--split {wanted}: there is no such split{hint} (splits: {', '.join(data)})"
        )
    return data[wanted]
