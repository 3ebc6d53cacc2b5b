"""The objectives by name: what each needs from a batch and a model, and which settings it reads.

The trainer, the checks of the settings and `clic-train --help` read this table, so an objective
can be used once it has an entry here. Settings are checked without torch, so nothing here
imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clic.losses.objectives import Objective

KINDS = ("composite", "single")  # those of `clic.types`, which imports torch
NEGATIVES = "false captions"
SECOND_POSITIVE = "a second true caption"
SOFTMAX = "a softmax"  # a model with a logit_bias has the sigmoid loss instead
SIGMOID = "a logit_bias"  # and one without has the softmax
EVERY = ("logits_at_once",)
"""The settings of `loss` that every objective takes."""


@dataclass(frozen=True)
class Entry:
    """An objective that `loss.composite` and `loss.single` can name.

    Attributes:
        home: Location of the class, ``module:Class``, imported on first use.
        about: What it minimises, in a few words.
        needs: Any of `NEGATIVES`, `SECOND_POSITIVE`, `SOFTMAX` and `SIGMOID`, each with the weight
            setting that removes the need when it is 0, or None.
        reads: The settings of `loss` that it takes besides `EVERY`, named like its arguments.
        kinds: The kinds of batch that it can train on.
        contrastive_weight: The weight setting that, when it is 0, removes the comparison of each
            image with the other images of the batch; None if there is none.
    """

    home: str
    about: str
    needs: Mapping[str, str | None]
    reads: tuple[str, ...] = ()
    kinds: tuple[str, ...] = KINDS
    contrastive_weight: str | None = None

    def __call__(self, **arguments: Any) -> Objective:
        """Return the objective with the given arguments of its class."""
        module, name = self.home.split(":")
        made: Objective = getattr(import_module(module), name)(**arguments)
        return made

    def of(self, loss: object) -> Objective:
        """Return the objective that the settings of `loss` describe."""
        return self(**{name: getattr(loss, name) for name in (*self.reads, *EVERY)})

    def needs_now(self, what: str, loss: object) -> bool:
        """Return whether the objective needs `what` with the weights in `loss`."""
        return what in self.needs and _above_zero(self.needs[what], loss)

    def is_contrastive(self, loss: object) -> bool:
        """Return whether the objective compares the images of a batch, with the given weights."""
        return _above_zero(self.contrastive_weight, loss)


def _above_zero(weight: str | None, loss: object) -> bool:
    return weight is None or getattr(loss, weight) > 0


OBJECTIVES: dict[str, Entry] = {
    "clip": Entry(
        home="clic.losses.objectives:ClipObjective",
        about="the symmetric contrastive loss of CLIP (SigLIP's, where the model has a bias)",
        needs={},
    ),
    "clic": Entry(
        home="clic.losses.objectives:ClicObjective",
        about="CLIC, a weighted sum of three terms",
        needs={NEGATIVES: "hard_negative_weight", SECOND_POSITIVE: "unimodal_weight"},
        reads=(
            "contrastive_weight",
            "hard_negative_weight",
            "unimodal_weight",
            "hard_negative_positives",
            "negative_weights",
        ),
        kinds=("composite",),
        contrastive_weight="contrastive_weight",
    ),
    "softmax_negatives": Entry(
        home="clic.losses.objectives:SoftmaxNegativesObjective",
        about="NegCLIP and CLoVe: false captions among the images' candidates",
        needs={NEGATIVES: None, SOFTMAX: None},
    ),
    "sigmoid_negatives": Entry(
        home="clic.losses.sigmoid_negatives:SigmoidNegativesObjective",
        about="the same for SigLIP's models: false captions among those that match no image",
        needs={NEGATIVES: None, SIGMOID: None},
    ),
    "paraphrase": Entry(
        home="clic.losses.objectives:ParaphraseObjective",
        about="NegCLIP's loss and, between texts, a caption against its paraphrase",
        needs={NEGATIVES: None, SECOND_POSITIVE: None, SOFTMAX: None},
        reads=("paraphrase_weight", "paraphrase_scale"),
        kinds=("single",),
    ),
}


def choices(kind: str) -> tuple[str, ...]:
    """Return the objectives that can train on a kind of batch, composite or single."""
    return tuple(sorted(name for name, entry in OBJECTIVES.items() if kind in entry.kinds))
