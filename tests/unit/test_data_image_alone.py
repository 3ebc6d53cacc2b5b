"""CLIC's Single-Image Baseline: a row of one image, with the true and false captions of a row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from clic import images, models
from clic.config.checks import validate
from clic.config.train_settings import Config
from clic.data import BatchBuilder, make_builder
from clic.data.sampling.sample_sources import SampleSource
from clic.errors import ConfigError
from clic.losses.objectives import ClicObjective, ClipObjective
from clic.types import Features, Sample

WORDS = ("compose.layout=alone", "captions.composite_negative=swap", "loss.unimodal_weight=0",
         "captions.composite_positives=4", "captions.tagger=hanta",
         "data.decode=exact")  # fmt: skip


class Photos(SampleSource):
    """Images in two orientations, each with a sentence in which words can swap and two others."""

    def __len__(self) -> int:
        return 8

    def sizes(self) -> np.ndarray:
        return np.array([(40, 24) if i % 2 else (24, 40) for i in range(len(self))])

    def read(self, index: int) -> Sample:
        width, height = self.sizes()[index]
        image = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        sentences = (f"a dog chases {index} red cats", "it is sunny.", "Grass grows")
        return Sample(str(index), image, sentences)


@pytest.fixture
def builder(settings: Callable[..., Config], tiny: Path) -> BatchBuilder:
    config, source = settings(*WORDS), Photos()
    validate(config)
    clip = models.create(str(tiny))
    return make_builder(config, {"composite": source, "single": source}, clip)


def test_a_row_is_one_image_as_the_model_sees_it(builder: BatchBuilder) -> None:
    batch, model = builder.build(0), builder.preprocess
    assert batch.kind == "composite" and [len(keys) for keys in batch.keys] == [1] * 4
    assert (batch.mean, batch.std) == (model.mean, model.std)
    for pixels, (key,) in zip(batch.images.numpy(), batch.keys, strict=True):
        image = Photos().read(int(key)).image
        assert np.array_equal(pixels, images.single(image, model.size))
    assert batch.tally.joined == 0 and batch.tally.samples == 4


def test_its_captions_are_those_of_one_image(builder: BatchBuilder) -> None:
    batch = builder.build(0)
    assert batch.negative_kinds == ("swap",) and batch.negative_mask is not None
    assert batch.negative_mask.all()
    for (key,), row in zip(batch.keys, batch.examples, strict=True):
        first = f"a dog chases {key} red cats."
        assert row.positives[:2] == (first, first)
        assert sorted(row.positives[2:]) == ["grass grows.", "it is sunny."]
        (negative,) = row.negatives
        assert negative is not None and negative.text.endswith(".")
        assert negative.text != first and sorted(negative.text) != sorted("it is sunny.")


def test_the_single_steps_in_between_stay(builder: BatchBuilder) -> None:
    batch = builder.build(1)
    assert batch.kind == "single" and batch.positives.shape[1] == 1 and batch.negatives is None


def test_the_papers_loss_of_it_by_hand() -> None:
    """Eq. 7 is 0.5 * Eq. 4 + 0.5 * Eq. 5, as p1 = p2 makes Eq. 6 zero, value and gradient."""
    generator = torch.Generator().manual_seed(0)

    def unit(*shape: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)

    positives = unit(3, 4, 8)
    positives[:, 1] = positives[:, 0]
    leaf = positives.clone().requires_grad_()
    features = Features(unit(3, 8), leaf, torch.tensor(20.0), unit(3, 1, 8))
    published, ours = ClicObjective()(features), ClicObjective(unimodal_weight=0)(features)
    assert published.terms["unimodal"] == 0 and published.total == ours.total
    gradients = [torch.autograd.grad(one.total, leaf)[0] for one in (published, ours)]
    torch.testing.assert_close(*gradients)
    contrastive = ClipObjective()(features).total
    assert features.negative_features is not None
    images_of_rows = features.image_features.unsqueeze(1)
    margins = ((positives - features.negative_features) * images_of_rows).sum(-1)
    eq5 = -torch.nn.functional.logsigmoid(20.0 * margins).mean()
    torch.testing.assert_close(published.total, 0.5 * contrastive + 0.5 * eq5)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["captions.composite_negative=cross_swap"], "use captions.composite_negative=swap"),
        (["compose.layout=pair"], "use captions.composite_negative=cross_swap"),
        (["loss.unimodal_weight=1"], "they are the same text; set it to 0"),
        (["captions.layout_share=0.5"], "captions.layout_share=0.5 has no effect with compose.la"),
        (["sampling.partner_self=true"], "sampling.partner_self=true has no effect"),
        (["compose.statistics=imagenet"], "compose.statistics=imagenet has no effect"),
        (["captions.repair_negatives=false"], "any compose.layout but pair"),
    ],
)
def test_what_needs_two_images_is_refused(
    settings: Callable[..., Config], words: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        validate(settings(*WORDS, *words))
