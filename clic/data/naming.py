"""The tars that a setting names: folders, files and brace patterns, on disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from webdataset.shardlists import expand_urls

from clic.errors import DataError

REMOTE = re.compile(r"pipe:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def find_shards(shards: Any, setting: str) -> list[Path]:
    """Return the tars that a setting names.

    Args:
        shards: A folder, a file, a brace pattern, or a list of them.
        setting: Name of the setting, for messages.

    Raises:
        DataError: Something named is not there, not on disk or no tar.
    """
    names = [shards] if isinstance(shards, str) else list(shards)
    found: list[Path] = []
    for name in names:
        if REMOTE.match(str(name)):
            raise DataError(
                f"{setting}={name}: shards are read from disk only for now; "
                "download them first and name their folder"
            )
        for word in expand_urls(str(name)):
            path = Path(word).expanduser()
            if path.is_dir():
                inside = sorted(path.glob("*.tar"))
                if not inside:
                    raise DataError(f"{setting}={name}: no .tar files in {path}")
                found += inside
            elif path.is_file():
                if path.suffix.lower() != ".tar":
                    raise DataError(
                        f"{setting}={name}: {path.name} is no .tar file, and shards must be "
                        "WebDataset .tar files; pack the images and captions into some, "
                        "e.g. with img2dataset"
                    )
                found.append(path)
            else:
                raise DataError(f"{setting}={name}: there is no file or folder {path}")
    return found
