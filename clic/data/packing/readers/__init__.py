"""Readers of all formats that can be packed, and the detection of a source's format.

In: a source that the user names. Out: its items, always in the same order. Read `base` first, then
`image_folders`, `json_lists`, `columnar`, and finally `text_rows` and `text_tables`.
"""

from __future__ import annotations

from pathlib import Path

from clic.data.packing.readers.base import IMAGE_ENDINGS, FormatReader, Request, files_below
from clic.data.packing.readers.columnar import MARKS, PREFIX, HubDataset, Parquet
from clic.data.packing.readers.image_folders import Folder, Tars
from clic.data.packing.readers.json_lists import Coco, Karpathy, Records, detect_list
from clic.data.packing.readers.text_tables import ClicCsv, NegClip, Table, detect_table
from clic.data.shards.locating import is_pattern, matches
from clic.errors import DataError, did_you_mean, pick

_READERS: tuple[type[FormatReader], ...] = (
    *(ClicCsv, Table, NegClip, Parquet, Folder),
    *(Tars, Coco, Karpathy, Records, HubDataset),
)
FORMATS = {reader.NAME: reader for reader in _READERS}
ENDINGS = {".tar": Tars, ".parquet": Parquet, ".jsonl": Records, ".ndjson": Records}
TABLE_ENDINGS = (".csv", ".tsv", ".txt", ".tab")
COMPRESSED = (".gz", ".tgz", ".zip", ".bz2", ".xz", ".zst", ".7z")


def open_source(source: str, request: Request, format: str | None = None) -> FormatReader:
    """Return the reader of a source.

    Args:
        source: A file, a folder, a pattern of tars or parquet files, or `hf:NAME`.
        request: What the user specifies about it.
        format: A name of `FORMATS`, or None to detect it.

    Raises:
        ConfigError: The format is unknown, or an option has no effect on it.
        DataError: The source is missing or of no known format.
    """
    reader = None if format is None else pick(FORMATS, format, "--format")
    source = _one_of(source)
    _check_exists(source)
    return (reader or detect(source, request))(source, request)


def _one_of(source: str) -> str:
    """Return the file that a pattern matches, or the pattern if its files are packed together."""
    if not is_pattern(source):
        return source
    found = matches(source)
    if {path.suffix.lower() for path in found} in ({".tar"}, {".parquet"}):
        return source
    if len(found) == 1:
        return str(found[0])
    if not found:
        raise DataError(f"SOURCE {source}: no file matches this pattern; check it")
    raise DataError(
        f"SOURCE {source}: {len(found)} files match this pattern ({found[0].name}, "
        f"{found[1].name}, ...), and only tars and parquet files are packed together; name one, or "
        "pack each into a folder of its own, which a run can read together"
    )


def _check_exists(source: str) -> None:
    path = Path(source)
    if not (source.startswith(PREFIX) or "{" in source or is_pattern(source) or path.exists()):
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, near)
        raise DataError(f"SOURCE {source}: there is no such file or folder{hint}")


def detect(source: str, request: Request) -> type[FormatReader]:
    """Return the reader of the format that a source appears to have; raises `DataError`."""
    path, ending = Path(source), Path(source).suffix.lower()
    if source.startswith(PREFIX):
        return HubDataset
    if path.is_dir():
        return _detect_folder(path)
    if ending in ENDINGS:
        return ENDINGS[ending]
    if ending == ".json":
        return detect_list(path)
    if ending in TABLE_ENDINGS:
        return detect_table(path, request)
    if ending in COMPRESSED:
        raise DataError(f"SOURCE {source} is compressed; unpack it first")
    raise DataError(
        f"SOURCE {source}: the format of a {ending or 'file without ending'} is not known; "
        f"name it with --format ({', '.join(FORMATS)})"
    )


def _detect_folder(path: Path) -> type[FormatReader]:
    names = [p.name for p in path.iterdir()]
    endings = {Path(name).suffix.lower() for name in names}
    if any(mark in names for mark in MARKS):
        return HubDataset
    if ".tar" in endings:
        return Tars
    if lists := sorted(name for name in names if name.lower().endswith((".csv", ".tsv"))):
        raise DataError(
            f"SOURCE {path} holds {lists[0]}: name that file, or use --format folder if the "
            "captions are beside the images"
        )
    if any(files_below(path, tuple(IMAGE_ENDINGS))):
        return Folder
    if any(files_below(path, ".parquet")):
        return Parquet
    raise DataError(
        f"SOURCE {path}: the folder holds neither images, nor tars, nor parquet files; "
        "name the CSV, TSV or JSON that lists the images"
    )
