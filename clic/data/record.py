"""The texts of a sample, from its `.json` and `.txt`."""

from __future__ import annotations

import json
from typing import Any

from clic.errors import DataError

MAX_TEXT = 1_000_000
"""Bytes of a sample's JSON, or of its text, above which it is refused."""


def parse_record(data: bytes) -> dict[str, Any]:
    """Return a sample's JSON.

    Raises:
        DataError: It is no JSON object, or above `MAX_TEXT`.
    """
    check_length("JSON", len(data))
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"its JSON is not valid: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"its JSON should be an object, not {type(record).__name__}")
    return record


def check_length(what: str, length: int) -> None:
    """Raise `DataError` where a sample's JSON or text is too long to be one."""
    if length > MAX_TEXT:
        raise DataError(f"its {what} of {length} bytes is above the limit of {MAX_TEXT}")


def negatives_of(record: dict[str, Any]) -> tuple[str, ...]:
    """Return a sample's false captions: the JSON's `negatives`, a list, where there are any.

    Raises:
        DataError: It is something else, or holds something else than text.
    """
    found = record.get("negatives")
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise DataError("its `negatives` should be a list of texts; pack it anew")
    return tuple(text.strip() for text in found if text.strip())


def captions_of(record: dict[str, Any], text: bytes) -> tuple[str, ...]:
    """Return a sample's captions: the JSON's `captions` or `caption`, else the text.

    Raises:
        DataError: A caption is no valid Unicode, or the text above `MAX_TEXT`.
    """
    found = record.get("captions") or record.get("caption")
    sentences = found if isinstance(found, list) else [found]
    captions = tuple(s.strip() for s in sentences if isinstance(s, str) and s.strip())
    if not captions and text:
        check_length("text", len(text))
        caption = text.decode("utf-8", errors="replace").strip()
        captions = (caption,) if caption else ()
    try:
        "".join(captions).encode()
    except UnicodeEncodeError as error:  # JSON may hold half a surrogate pair
        raise DataError(f"a caption is not valid Unicode: {error}") from error
    return captions
