"""One built model whose weights are replaced in place, so that a sweep builds it only once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from clic import models
from clic.models.encoder import Encoder
from clic.patching.alpha_rules import tower_of
from clic.patching.tensor_files import Layout

Load = Callable[[Path], Encoder]
"""Builds the model of an open_clip folder."""


class LiveEncoder(Encoder):
    """An encoder for a model whose weights changed; it reuses whatever the change left valid.

    Args:
        first: The encoder of the model before the change.
        texts: Text features by caption, read and added to, if the text tower did not change; None
            encodes every caption.
        digests: Digests of the tensors that did not change, by name.

    Attributes:
        digests: Digests of all tensors.
    """

    def __init__(
        self, first: Encoder, texts: dict[str, Tensor] | None, digests: Mapping[str, bytes]
    ) -> None:
        super().__init__(first.clip, first.batch_size, first.precision)
        self.digests = dict(digests)
        # Computed now, before the weights change again.
        self.identity = models.identity(first.clip, self.digests)
        self._texts = texts

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Encode N captions as `Encoder` does, but each only once if the tower is unchanged."""
        if self._texts is None or not captions:
            return super().encode_text(captions)
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._texts]
        if new:
            self._texts.update(zip(new, super().encode_text(new), strict=True))
        return torch.stack([self._texts[caption] for caption in captions])


class LiveModel:
    """A model in memory whose tensors can be replaced by others of the same names and shapes.

    Args:
        folder: Open_clip folder of the first model.
        load: Builds that model.
        layout: The tensors to be replaced later.
        changing: The ones among them that do change.
    """

    def __init__(
        self, folder: Path, load: Load, layout: Mapping[str, Layout], changing: Collection[str]
    ) -> None:
        self._first = load(folder)
        self._state: dict[str, Tensor] = self._first.clip.model.state_dict()
        towers = {tower_of(name) for name in changing}
        self._texts: dict[str, Tensor] | None = None if "text" in towers else {}
        self._digests: dict[str, bytes] = {}
        self.replaceable = self._fits(layout)

    def _fits(self, layout: Mapping[str, Layout]) -> bool:
        """Return whether tensors can be replaced by name; open_clip converts some when it loads."""
        return self._state.keys() == layout.keys() and all(
            tuple(value.shape) == layout[name].shape
            and value.is_contiguous()
            and value.is_floating_point() == layout[name].dtype.is_floating_point
            for name, value in self._state.items()
        )

    def write(self, name: str, start: int, values: Tensor) -> None:
        """Replace the elements of a tensor from `start` on, as `TensorWriter.write` writes them."""
        self._digests.pop(name, None)
        flat = values.reshape(-1)
        with torch.no_grad():
            self._state[name].view(-1)[start : start + len(flat)].copy_(flat)

    def encoder(self) -> Encoder:
        """Return an encoder of the weights as they are now."""
        encoder = LiveEncoder(self._first, self._texts, self._digests)
        self._digests = encoder.digests
        return encoder
