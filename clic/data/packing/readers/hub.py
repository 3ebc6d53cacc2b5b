"""Hugging Face datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clic.data.packing.fetch import need
from clic.data.packing.items import Item
from clic.data.packing.readers.base import Reader, captions_of, choose_columns
from clic.errors import ConfigError, DataError, did_you_mean

PREFIX = "hf:"
MARKS = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves in a folder."""


class HubDataset(Reader):
    """A dataset of the library datasets: `hf:NAME[:CONFIG]`, or a folder of save_to_disk."""

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
        number = 0
        for batch in self.data.select_columns(list(self.captions)).iter(batch_size=1000):
            for values in zip(*(batch[name] for name in self.captions), strict=True):
                captions = tuple(c for value in values for c in captions_of(value))
                place = ("dataset", self.source, self.request.split, self.image, number)
                yield Item(f"{self.source}:{number}", "", place, captions)
                number += 1


def open_dataset(source: str, split: str | None) -> Any:
    """Return one split of a dataset, `train` where none is named and there are several.

    Raises:
        ConfigError: The split is not there.
        DataError: The dataset cannot be had.
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
    if not isinstance(data, dict):  # a DatasetDict is one
        if split is not None:
            raise ConfigError(f"--split {split} has no effect: {source} has no splits")
        return data
    wanted = split or ("train" if "train" in data or len(data) > 1 else next(iter(data)))
    if wanted not in data:
        hint = did_you_mean(wanted, data)
        raise ConfigError(f"--split {wanted}: not there{hint} (splits: {', '.join(data)})")
    return data[wanted]
