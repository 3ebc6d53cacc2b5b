"""The objectives by name: what each needs of a batch and a model, and which settings it reads.

The trainer, the checks of the settings and `clic-train --help` read this table, so an objective
that has an entry here can be used. Nothing here imports torch: settings are checked without it.
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
SOFTMAX = "a softmax"  # which a model with a logit_bias (sigmoid loss) has not


@dataclass(frozen=True)
class Entry:
    """An objective that `loss.composite` and `loss.single` can name.

    Attributes:
        home: Where the class is, ``module:Class``; it is imported when it is made.
        about: What it minimises, in a few words.
        needs: `NEGATIVES`, `SECOND_POSITIVE` and `SOFTMAX`, each with the weight among the
            settings whose 0 does without it, None where nothing does.
        reads: Settings of `loss` that it takes, each under the name of its argument.
        kinds: Kinds of batch that it can train on.
    """

    home: str
    about: str
    needs: Mapping[str, str | None]
    reads: tuple[str, ...] = ()
    kinds: tuple[str, ...] = KINDS

    def __call__(self, **arguments: Any) -> Objective:
        """Return the objective with these arguments, those of its class."""
        module, name = self.home.split(":")
        made: Objective = getattr(import_module(module), name)(**arguments)
        return made

    def of(self, loss: object) -> Objective:
        """Return the objective as the settings of `loss` say."""
        return self(**{name: getattr(loss, name) for name in self.reads})

    def needs_now(self, what: str, loss: object) -> bool:
        """Return whether it needs `what` with the weights that the settings of `loss` have."""
        weight = self.needs.get(what)
        return what in self.needs and (weight is None or getattr(loss, weight) > 0)


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
    ),
    "softmax_negatives": Entry(
        home="clic.losses.objectives:SoftmaxNegativesObjective",
        about="NegCLIP and CLoVe: false captions among the images' candidates",
        needs={NEGATIVES: None, SOFTMAX: None},
    ),
}


def choices(kind: str) -> tuple[str, ...]:
    """Return the objectives that can train on a kind of batch, composite or single."""
    return tuple(sorted(name for name, entry in OBJECTIVES.items() if kind in entry.kinds))
