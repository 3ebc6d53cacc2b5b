"""Where a benchmark's files come from, and what of them is on this disk."""

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
        path: Where it lies below the data root.
        checksum: ``sha256:...`` or ``md5:...`` where one is published, else None.
        size: Bytes, where known.
    """

    url: str
    path: str
    checksum: str | None = None
    size: int | None = None

    @property
    def gives(self) -> str:
        """The path below the data root that is there afterwards."""
        return self.path


@dataclass(frozen=True)
class Archive:
    """A zip or tar file that is downloaded, unpacked and removed.

    Attributes:
        url: http or https.
        name: What the archive is called meanwhile, below the data root.
        into: Folder that its members are put into, below the data root.
        gives: Path below the data root that is there afterwards.
        checksum: As of a `File`.
        size: Bytes of the archive, where known.
        only: Folder or file of the archive that is wanted; None for all of it.
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
    """Files of a folder in a data set of the Hugging Face hub, which publishes their SHA-256.

    Attributes:
        repository: ``owner/name``.
        folder: Folder in it.
        pattern: Which of its files, as a shell pattern.
        gives: Folder below the data root that they are put into.
    """

    repository: str
    folder: str
    pattern: str
    gives: str


@dataclass(frozen=True)
class ImageList:
    """Images that are downloaded one by one; some are gone from the web by now.

    Attributes:
        gives: Folder of the images below the data root.
        urls: Data root -> address of each image by its path below the data root; it reads the
            annotations, which therefore come first.
    """

    gives: str
    urls: Callable[[Path], dict[str, str]]


@dataclass(frozen=True)
class Torchvision:
    """A set that torchvision downloads and checks itself.

    Attributes:
        gives: Folder below the data root that is there afterwards.
        fetch: Data root -> None.
    """

    gives: str
    fetch: Callable[[Path], object]


@dataclass(frozen=True)
class ByHand:
    """What only a person can get, because it needs a sign-up or has no address any more.

    Attributes:
        gives: Path below the data root that should be there afterwards.
        why: Why, in a few words.
        steps: What to do, with ``{data}`` for the data root; commands where there are any.
        instead: Shell pattern below the data root of what serves as well, None for nothing.
    """

    gives: str
    why: str
    steps: str
    instead: str | None = None


Source = File | Archive | HubFolder | ImageList | Torchvision | ByHand


def present(source: Source, data_root: Path) -> bool:
    """Return whether what a source gives is below the data root."""
    instead = source.instead if isinstance(source, ByHand) else None
    other = instead is not None and any(data_root.glob(instead))
    return other or (data_root / source.gives).exists()


def how_to_get(missing: Mapping[str, Sequence[Source]], data_root: Path) -> list[str]:
    """Return the command that gets what is missing, after the steps that only a person can do.

    Args:
        missing: Sources by the benchmark that needs them.
        data_root: Where their files should be.
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
    """Return where a source's files are, for listings."""
    if isinstance(source, File | Archive):
        return source.url
    if isinstance(source, HubFolder):
        return f"https://huggingface.co/datasets/{source.repository} ({source.folder})"
    if isinstance(source, ImageList):
        return "the addresses that the annotations name"
    return "torchvision" if isinstance(source, Torchvision) else f"a person: {source.why}"


def drive(identifier: str) -> str:
    """Return the address of a public file on Google Drive, past its page for large files."""
    host = "https://drive.usercontent.google.com"
    return f"{host}/download?id={identifier}&export=download&confirm=t"


def github(repository: str, names: tuple[str, ...], folder: str) -> tuple[File, ...]:
    """Return the JSON files in `data/` of a GitHub repository."""
    base = f"https://raw.githubusercontent.com/{repository}/main/data"
    return tuple(File(f"{base}/{name}.json", f"{folder}/{name}.json") for name in names)
