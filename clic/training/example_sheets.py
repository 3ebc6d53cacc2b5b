"""Pictures of what a run trains on: the first rows of a batch with all their captions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from clic.captions.composites import TokenBudget
from clic.data.tools.contact_sheet import Section, draw_sheet
from clic.io.files import replacing
from clic.types import Batch

FOLDER = "examples"


class ExampleSheets:
    """Draws the first batch of each kind, and one of each kind every so many steps.

    Args:
        folder: The run's folder; pictures go into its `examples/`.
        every: Steps between pictures; 0 draws only the first ones.
        budget: How much of a caption the model reads, None if that is unknown.
        show: Called with step, name and picture.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        budget: TokenBudget | None,
        show: Callable[[int, str, Image.Image], None],
    ) -> None:
        self.folder, self.every, self.budget, self.show = folder / FOLDER, every, budget, show
        self._drawn: dict[str, int] = {}
        for path in sorted(self.folder.glob("step-*.png")):
            step, kind = path.stem.removeprefix("step-").split("-", 1)
            if step.isdecimal():
                self._drawn[kind] = int(step) - 1

    def __call__(self, batch: Batch) -> None:
        """Draw a batch if it is due."""
        last = self._drawn.get(batch.kind)
        due = last is None or (self.every and batch.step // self.every > last // self.every)
        if not due or not batch.examples:
            return
        self._drawn[batch.kind] = batch.step
        rows = [(image, c) for image, c in zip(batch.images.numpy(), batch.examples, strict=False)]
        title = f"step {batch.step + 1}, {batch.kind}"
        picture = draw_sheet([Section(title, rows)], budget=self.budget)
        self.folder.mkdir(exist_ok=True)
        with replacing(self.folder / f"step-{batch.step + 1:06d}-{batch.kind}.png") as file:
            picture.save(file, "PNG")
        self.show(batch.step + 1, f"examples/{batch.kind}", picture)
