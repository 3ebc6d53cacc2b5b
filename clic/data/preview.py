"""A contact sheet of what the model is shown: images with their true and false captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clic.data.captioning import RowCaptions

IMAGE_SIDE, TEXT_WIDTH, MARGIN, LINE = 160, 360, 12, 18
INK, GREY, RED, PAPER = (20, 20, 20), (110, 110, 110), (200, 20, 20), (255, 255, 255)
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
Word = tuple[str, tuple[int, int, int]]


def draw_sheet(rows: Sequence[tuple[np.ndarray, RowCaptions]], columns: int = 2) -> Image.Image:
    """Draw rows of a batch.

    Args:
        rows: Pixels, uint8 [S, S, 3], and captions; the words that make a caption false are red.
        columns: Rows of the batch that stand side by side.

    Returns:
        The sheet.
    """
    font = ImageFont.load_default(size=13)
    cells = [_cell(pixels, captions, font) for pixels, captions in rows]
    lines = -(-len(cells) // columns)
    heights = [max(c.height for c in cells[i * columns : (i + 1) * columns]) for i in range(lines)]
    width = IMAGE_SIDE + TEXT_WIDTH + 2 * MARGIN
    sheet = Image.new("RGB", (columns * width + MARGIN, sum(heights) + MARGIN * (lines + 1)), PAPER)
    for number, cell in enumerate(cells):
        line, column = divmod(number, columns)
        top = sum(heights[:line]) + MARGIN * (line + 1)
        sheet.paste(cell, (column * width + MARGIN, top))
    return sheet


def _cell(pixels: np.ndarray, captions: RowCaptions, font: Font) -> Image.Image:
    lines: list[list[Word]] = []
    for number, text in enumerate(captions.positives, 1):
        lines += _wrap([(f"p{number}", GREY), *((word, INK) for word in text.split())], font)
    if captions.negative is None:
        lines += [[("no false caption", GREY)]]
    else:
        changed = {word for edit in captions.negative.edits for word in edit.new.split()}
        words = captions.negative.text.split()
        coloured = [(w, RED if w.strip(".,") in changed else INK) for w in words]
        lines += _wrap([("false", RED), *coloured], font)
    height = max(IMAGE_SIDE, LINE * len(lines))
    cell = Image.new("RGB", (IMAGE_SIDE + MARGIN + TEXT_WIDTH, height), PAPER)
    image = Image.fromarray(pixels).resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.LANCZOS)
    cell.paste(image, (0, 0))
    draw = ImageDraw.Draw(cell)
    for number, line in enumerate(lines):
        left = float(IMAGE_SIDE + MARGIN)
        for word, colour in line:
            draw.text((left, number * LINE), word, fill=colour, font=font)
            left += font.getlength(f"{word} ")
    return cell


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
