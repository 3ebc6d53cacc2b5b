"""Draws a contact sheet of what the model sees: images with their true and false captions."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clic.captions.composites import TokenBudget
from clic.types import RowCaptions

LEAST_SIDE, TEXT_WIDTH, MARGIN, LINE = 160, 360, 12, 18
INK, GREY, RED, PAPER = (20, 20, 20), (110, 110, 110), (200, 20, 20), (255, 255, 255)
PALE = (185, 185, 185)  # words that the model does not read
UNREAD_SHOWN = 12  # how many of those words are drawn
# DejaVu Sans has Latin, Greek, Cyrillic and more; Pillow's default font has English letters only.
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
Word = tuple[str, tuple[int, int, int]]


class Section(NamedTuple):
    """A heading and the first rows of a batch: pixels, uint8 [S, S, 3], and captions."""

    title: str
    rows: Sequence[tuple[np.ndarray, RowCaptions]]


def draw_sheet(
    sections: Sequence[Section], columns: int = 2, budget: TokenBudget | None = None
) -> Image.Image:
    """Return a contact sheet of batches' rows under their headings.

    The words that make a caption false are red, and those beyond the model's context are pale.
    Images have the model's exact pixels; small ones are enlarged by an integer factor.

    Args:
        sections: What to draw.
        columns: Number of rows of a batch side by side.
        budget: How much of a caption the model reads; None if that is unknown.
    """
    font = ImageFont.truetype(FONT, 13)
    bands = [_band(section, columns, font, budget) for section in sections]
    sheet = _blank(max(band.width for band in bands), sum(band.height for band in bands))
    top = 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    return sheet


def _blank(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), PAPER)


def _band(section: Section, columns: int, font: Font, budget: TokenBudget | None) -> Image.Image:
    cells = [_cell(pixels, captions, font, budget) for pixels, captions in section.rows]
    lines = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in line) + MARGIN for line in lines]
    band = _blank(columns * (cells[0].width + MARGIN) + MARGIN, LINE + MARGIN + sum(heights))
    ImageDraw.Draw(band).text((MARGIN, MARGIN // 2), section.title, fill=GREY, font=font)
    top = LINE + MARGIN
    for line, height in zip(lines, heights, strict=True):
        for column, cell in enumerate(line):
            band.paste(cell, (column * (cell.width + MARGIN) + MARGIN, top))
        top += height
    return band


def _paragraphs(captions: RowCaptions, budget: TokenBudget | None) -> Iterator[list[Word]]:
    """Yield the words of each caption, beginning with its label."""
    for number, text in enumerate(captions.positives, 1):
        words = [(word, INK) for word in text.split()]
        yield [(f"p{number}", GREY), *_unread_pale(words, budget)]
    false = [negative for negative in captions.negatives if negative is not None]
    if not false:
        yield [("no false caption", GREY)]
    for negative in false:
        marked = mark_changes(negative.text, captions.positives)
        words = [(word, RED if changed else INK) for word, changed in marked]
        kind = [(f"({negative.kind})", GREY)] if len(captions.negatives) > 1 else []
        yield [("false", RED), *kind, *_unread_pale(words, budget)]


def _cell(
    pixels: np.ndarray, captions: RowCaptions, font: Font, budget: TokenBudget | None
) -> Image.Image:
    lines = [line for words in _paragraphs(captions, budget) for line in _wrap(words, font)]
    factor = -(-LEAST_SIDE // len(pixels))
    shown = Image.fromarray(pixels.repeat(factor, axis=0).repeat(factor, axis=1))
    cell = _blank(shown.width + MARGIN + TEXT_WIDTH, max(shown.height, LINE * len(lines)))
    cell.paste(shown, (0, 0))
    draw = ImageDraw.Draw(cell)
    for number, line in enumerate(lines):
        left = float(shown.width + MARGIN)
        for word, colour in line:
            draw.text((left, number * LINE), word, fill=colour, font=font)
            left += font.getlength(f"{word} ")
    return cell


def mark_changes(false: str, positives: Sequence[str]) -> list[tuple[str, bool]]:
    """Return the words of a false caption, and whether each differs from the nearest true one."""
    words = false.split()
    marks = min((_changes(text.split(), words) for text in positives), key=sum)
    return list(zip(words, marks, strict=True))


def _changes(true: list[str], false: list[str]) -> list[bool]:
    """Return which words of `false` differ: position by position, aligned if lengths differ."""
    if len(true) == len(false):
        return [old != new for old, new in zip(true, false, strict=True)]
    changed = [True] * len(false)
    for _, start, size in SequenceMatcher(None, true, false, autojunk=False).get_matching_blocks():
        changed[start : start + size] = [False] * size
    return changed


def _unread_pale(words: list[Word], budget: TokenBudget | None) -> list[Word]:
    """Return the words with the unread ones pale, and only the first few of those."""
    texts = [word for word, _ in words]
    if budget is None or budget.fits(" ".join(texts)):
        return words
    read = bisect(range(1, len(texts)), 0, key=lambda n: not budget.fits(" ".join(texts[:n])))
    unread = [(word, PALE) for word in texts[read : read + UNREAD_SHOWN]]
    more = [("...", PALE)] if len(texts) > read + UNREAD_SHOWN else []
    return [*words[:read], *unread, *more]


def _wrap(words: Sequence[Word], font: Font) -> list[list[Word]]:
    lines: list[list[Word]] = [[]]
    left = 0.0
    for word in words:
        width = font.getlength(f"{word[0]} ")
        if lines[-1] and left + width > TEXT_WIDTH:
            lines.append([("  ", INK)])
            left = font.getlength("   ")
        lines[-1].append(word)
        left += width
    return lines
