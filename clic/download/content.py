"""Whether what has arrived is what its name promises: no web page, and no file that was cut."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

from clic.download.connection import PassingError
from clic.errors import DataError

BLOCK = tarfile.BLOCKSIZE
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|script|\?xml|!--|error)", re.I)
POINTER = b"version https://git-lfs"
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, xz and zstd files begin; whether they are read as tars, their reader says."""
MARKUP = (".html", ".htm", ".xml", ".svg")


class WrongFileError(DataError):
    """What arrived is another thing than the file that was asked for."""


def check_content(path: Path, name: str, said: str, ended: bool) -> None:
    """Check a file that has arrived, as far as its name tells what it must be.

    Args:
        path: Where it lies.
        name: What it will be called; the ending counts.
        said: What the messages call it.
        ended: Whether the server told its length, and that has arrived.

    Raises:
        WrongFileError: It is something else.
        PassingError: It is cut.
    """
    with path.open("rb") as file:
        start = file.read(BLOCK)
    kind = Path(name).suffix.lower()
    if PAGE.match(start) and kind not in MARKUP:
        raise WrongFileError(
            f"{said} answers with a web page (a quota, a sign-up or a move), not with the file; "
            "open it in a browser, or try again later"
        )
    if start.startswith(POINTER):
        raise WrongFileError(
            f"{said} answers with a git LFS pointer, not with the file; take the address that its "
            "download button has"
        )
    if kind == ".tar":
        _check_tar(path, start, said, ended)
    elif kind == ".zip":
        _check_zip(path, start, said, ended)
    elif kind == ".json" and not ended:  # what was cut; what it holds is its reader's to judge
        _check_json(path, start, said)


def refuse_pointer(path: Path) -> None:
    """Raise `DataError` where a file that could not be read is what git leaves in its place."""
    with suppress(OSError), path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise DataError(
                f"{path} is a git LFS pointer, not the file; run git lfs pull where it comes from"
            )


def is_tar(start: bytes) -> bool:
    """Return whether a file that begins with these bytes may be a tar."""
    if start.startswith(PACKED) or not start.strip(b"\0"):
        return True
    try:
        tarfile.TarInfo.frombuf(start[:BLOCK], tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _check_tar(path: Path, start: bytes, said: str, ended: bool) -> None:
    if not is_tar(start):
        raise WrongFileError(
            f"{said} is no tar (it begins with {start[:16]!r}); check the address, or whether it "
            "needs a sign-in"
        )
    if ended or start.startswith(PACKED):
        return
    try:
        with tarfile.open(path, "r:") as tar, path.open("rb") as file:
            for _ in tar:
                pass
            file.seek(tar.offset)
            whole = file.read(BLOCK) == bytes(BLOCK)
    except tarfile.TarError:
        whole = False
    if not whole:
        raise PassingError("the tar ends early")


def _check_zip(path: Path, start: bytes, said: str, ended: bool) -> None:
    try:
        zipfile.ZipFile(path).close()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        if start.startswith(b"PK") and not ended:
            raise PassingError("the zip ends early") from error
        raise WrongFileError(
            f"{said} is no whole zip ({error}); check the address, or try again later"
        ) from error


def _check_json(path: Path, start: bytes, said: str) -> None:
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] not in (b"{", b"["):
        raise WrongFileError(
            f"{said} is no JSON (it begins with {start[:16]!r}); check the address, or whether it "
            "needs a sign-in"
        )
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        if getattr(error, "msg", "") != "Extra data":  # which is a file of several values
            raise PassingError("the JSON ends early") from error
