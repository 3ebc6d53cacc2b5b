"""Writing shards: members in webdataset's layout, the same bytes for the same samples."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import webdataset

from clic.data.packing.items import RejectedError
from clic.data.record import MAX_TEXT

_HEADERS = 4 * 512  # about what a member costs beside its bytes


class ShardWriter:
    """Writes one tar; nothing of the time, the user or the machine goes into it.

    Args:
        path: The tar, written in place.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.samples, self.bytes = path, 0, 0
        self._file = open(path, "wb")  # noqa: SIM115, closed with the writer
        self._tar = webdataset.TarWriter(self._file, mtime=0.0, encoder=False)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the tar; it is on the disk when this returns."""
        if self._file.closed:
            return
        try:
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def write(self, members: Mapping[str, Any]) -> None:
        """Add the members of a sample, as `members_of` gives them."""
        self._tar.write(members)
        self.samples += 1
        self.bytes += size_of(members)


def size_of(members: Mapping[str, Any]) -> int:
    """Return about how many bytes a sample takes in a tar."""
    return sum(len(data) + _HEADERS for name, data in members.items() if name != "__key__")


def members_of(key: str, ending: str, image: bytes, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a sample: image, `.json` and `.txt`.

    Args:
        key: Name of the sample.
        ending: Of the image.
        image: Its bytes.
        record: The JSON, with `caption`.

    Raises:
        RejectedError: The JSON is larger than is read, or a text is not UTF-8.
    """
    try:
        meta = json.dumps({"key": key, **record}, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RejectedError("its text is not UTF-8; save the source as UTF-8") from error
    if len(meta) > MAX_TEXT:
        raise RejectedError(f"its JSON would be larger than {MAX_TEXT:,} bytes")
    return {"__key__": key, ending: image, "json": meta, "txt": record["caption"].encode()}
