"""The texts of a sample, from its `.json` and `.txt`."""

from __future__ import annotations

import codecs
import json
from typing import Any

from clic.errors import DataError

MAX_TEXT = 1_000_000
"""Bytes of a sample's JSON, or of its text, above which it is refused."""

_MARKS = {  # the longer first: UTF-32's begins as UTF-16's
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
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


def decode_text(data: bytes) -> str:
    """Return the text of a `.txt`: UTF-8, or what a byte order mark says.

    Raises:
        DataError: It is neither. No other encoding is guessed, since a wrong guess is trained on.
    """
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"its text is not {encoding.upper().removesuffix('-SIG')} ({error.reason} at byte "
            f"{error.start}); save it as UTF-8, e.g. by iconv -f cp1252 -t utf-8"
        ) from error
    if "\0" in text:
        raise DataError(
            "its text holds zero bytes, as UTF-16 without a byte order mark does; save it as UTF-8,"
            " e.g. by iconv -f utf-16le -t utf-8"
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
