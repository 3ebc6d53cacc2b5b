"""Where a benchmark's files come from, and which of them are already here."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class File:
    """One file that is downloaded.

    Attributes:
        url: http or https.
        path: Path below the data root.
        checksum: ``sha256:...`` or ``md5:...`` if one is published, else None.
        size: Bytes, if known.
    """

    url: str
    path: str
    checksum: str | None = None
    size: int | None = None

    @property
    def gives(self) -> str:
        """The path below the data root that exists afterwards."""
        return self.path


@dataclass(frozen=True)
class Archive:
    """A zip or tar file that is downloaded, unpacked and removed.

    Attributes:
        url: http or https.
        name: Path of the archive below the data root until it is unpacked.
        into: Folder below the data root that it is unpacked into.
        gives: Path below the data root that exists afterwards.
        checksum: As for a `File`.
        size: Bytes of the archive, if known.
        only: Folder or file of the archive to unpack; None for all of it.
        rename: New name of the archive's top folder, None to keep it.
    """

    url: str
    name: str
    into: str
    gives: str
    checksum: str | None = None
    size: int | None = None
    only: str | None = None
    rename: tuple[str, str] | None = None


@dataclass(frozen=True)
class HubFolder:
    """Files in a folder of a data set on the Hugging Face hub, which publishes their SHA-256.

    Attributes:
        repository: ``owner/name``.
        folder: Folder in it.
        pattern: Shell pattern of the files to get.
        gives: Folder below the data root that they are put into.
    """

    repository: str
    folder: str
    pattern: str
    gives: str


@dataclass(frozen=True)
class ImageList:
    """Images that are downloaded one by one; some are no longer on the web.

    Attributes:
        gives: Folder of the images below the data root.
        urls: Takes the data root, reads the annotations, which are fetched first, and returns the
            URL of each image by its path below the data root.
    """

    gives: str
    urls: Callable[[Path], dict[str, str]]


@dataclass(frozen=True)
class Torchvision:
    """A data set that torchvision downloads and checks itself.

    Attributes:
        gives: Folder below the data root that exists afterwards.
        fetch: Downloads the set below a data root.
    """

    gives: str
    fetch: Callable[[Path], object]


@dataclass(frozen=True)
class ByHand:
    """Files that the user must get, because they need a sign-up or are no longer online.

    Attributes:
        gives: Path below the data root that should exist afterwards.
        why: The reason, in a few words.
        steps: Instructions, with ``{data}`` for the data root.
        instead: Shell pattern, below the data root, of files that serve as well, or None.
    """

    gives: str
    why: str
    steps: str
    instead: str | None = None


Source = File | Archive | HubFolder | ImageList | Torchvision | ByHand


def present(source: Source, data_root: Path) -> bool:
    """Return whether a source's files are below the data root."""
    instead = source.instead if isinstance(source, ByHand) else None
    other = instead is not None and any(data_root.glob(instead))
    return other or (data_root / source.gives).exists()


def how_to_get(missing: Mapping[str, Sequence[Source]], data_root: Path) -> list[str]:
    """Return how to get missing files: first the manual steps, then the command.

    Args:
        missing: The missing sources of each benchmark.
        data_root: Where the files belong.
    """
    data = shlex.quote(str(data_root))
    steps = [
        f"{source.steps.format(data=data)} ({source.why})"
        for sources in missing.values()
        for source in sources
        if isinstance(source, ByHand)
    ]
    names = [name for name, of in missing.items() if not all(isinstance(s, ByHand) for s in of)]
    commands = [f"clic-data fetch {' '.join(names)} --data {data}"] if names else []
    return [*dict.fromkeys(steps), *commands]


def origin(source: Source) -> str:
    """Return where a source's files come from, for listings."""
    if isinstance(source, File | Archive):
        return source.url
    if isinstance(source, HubFolder):
        return f"https://huggingface.co/datasets/{source.repository} ({source.folder})"
    if isinstance(source, ImageList):
        return "the addresses that the annotations name"
    return "torchvision" if isinstance(source, Torchvision) else f"a person: {source.why}"


def drive(identifier: str) -> str:
    """Return the URL of a public file on Google Drive; it skips the warning about large files."""
    host = "https://drive.usercontent.google.com"
    return f"{host}/download?id={identifier}&export=download&confirm=t"


def github(repository: str, names: tuple[str, ...], folder: str) -> tuple[File, ...]:
    """Return the JSON files in `data/` of a GitHub repository."""
    base = f"https://raw.githubusercontent.com/{repository}/main/data"
    return tuple(File(f"{base}/{name}.json", f"{folder}/{name}.json") for name in names)
