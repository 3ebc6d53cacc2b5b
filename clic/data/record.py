"""The texts of a sample, from its `.json` and `.txt`."""

from __future__ import annotations

import codecs
import json
from typing import Any

from clic.errors import DataError

MAX_TEXT = 1_000_000
"""Bytes of a sample's JSON, or of its text, above which it is refused."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16's, which it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def parse_record(data: bytes) -> dict[str, Any]:
    """Return a sample's JSON.

    Raises:
        DataError: It is no JSON object, or above `MAX_TEXT`.
    """
    check_length("JSON", len(data))
    try:
        record = json.loads(data)  # in UTF-8, -16 or -32, with or without a byte order mark
    except UnicodeDecodeError as error:
        raise DataError(f"its JSON is not valid UTF-8 ({error}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"its JSON is not valid: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"its JSON should be an object, not {type(record).__name__}")
    return record


def detect_encoding(start: bytes, given: str | None = None) -> tuple[str, int]:
    """Return the encoding of a text by its first bytes, and the length of its byte order mark.

    Args:
        start: The first bytes.
        given: What the user says it is; None takes UTF-8, where no mark and no zeros between the
            letters tell of UTF-16 or UTF-32.
    """
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding, len(mark)
    if given is not None:
        return given, 0
    high, low = start[:512:2], start[1:512:2]
    for encoding, zeros, others in (("utf-16-le", low, high), ("utf-16-be", high, low)):
        if zeros.count(0) * 2 > len(zeros) and not others.count(0):
            return encoding, 0
    return "utf-8", 0


def decode_text(data: bytes, what: str = "its text") -> str:
    """Return a text that is UTF-8, or what its byte order mark says.

    Args:
        data: The bytes.
        what: What they are, for messages.

    Raises:
        DataError: It is neither. No other encoding is guessed, since a wrong guess is trained on.
    """
    likely, mark = detect_encoding(data)
    encoding = likely if mark else "utf-8"
    unmarked = "" if likely == encoding else f"{likely[:6]}{likely[7:]}"  # as iconv writes it
    remedy = "save it as UTF-8, e.g. by iconv -f {} -t utf-8"
    try:
        text = data[mark:].decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{what} is not {encoding[:6].upper()} ({error.reason} at byte {mark + error.start}); "
            f"{remedy.format(unmarked or 'cp1252')}"
        ) from error
    if "\0" in text:
        raise DataError(
            f"{what} holds zero bytes, as UTF-16 without a byte order mark does; "
            f"{remedy.format(unmarked or 'utf-16le')}"
        )
    return text


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
        DataError: A caption is no valid Unicode, or the text not as `decode_text` reads it, or
            above `MAX_TEXT`.
    """
    found = record.get("captions") or record.get("caption")
    sentences = found if isinstance(found, list) else [found]
    captions = tuple(s.strip() for s in sentences if isinstance(s, str) and s.strip())
    if not captions and text:
        check_length("text", len(text))
        caption = decode_text(text).strip()
        captions = (caption,) if caption else ()
    try:
        "".join(captions).encode()
    except UnicodeEncodeError as error:  # JSON may hold half a surrogate pair
        raise DataError(f"a caption is not valid Unicode: {error}") from error
    return captions
