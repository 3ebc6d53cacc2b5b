"""What each of three ranks asserts by itself, or saves for the test to compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from clic import distributed
from clic.losses import OBJECTIVES, ClicObjective, Objective, SoftmaxNegativesObjective
from clic.types import Features

WORLD, B, P, K, WIDTH, D = 3, 4, 2, 2, 6, 8


def objectives() -> dict[str, Objective]:
    """Every objective by name; `sigmoid` is CLIC with a bias, `kinds` with names of negatives."""
    weighted = ClicObjective(negative_weights={"layout": 3.0})
    every = {name: make() for name, make in OBJECTIVES.items()}
    return every | {"sigmoid": ClicObjective(), "kinds": weighted}


class Towers(nn.Module):
    """The least model that has two towers, a scale and, for some objectives, a bias or names."""

    def __init__(self, objective: str = "clic") -> None:
        super().__init__()
        self.kinds = ("swap", "layout") if objective == "kinds" else ()
        generator = torch.Generator().manual_seed(0)
        self.image = nn.Parameter(torch.randn(WIDTH, D, generator=generator).double())
        self.text = nn.Parameter(torch.randn(WIDTH, D, generator=generator).double())
        self.log_scale = nn.Parameter(torch.tensor(1.0).double())
        self.bias = nn.Parameter(torch.tensor(-2.0).double()) if "sigmoid" in objective else None

    def forward(self, rows: list[Tensor], mask: Tensor) -> Features:
        images, positives, negatives = rows
        return Features(
            normalize(images @ self.image, dim=-1),
            normalize(positives @ self.text, dim=-1),
            self.log_scale.exp(),
            normalize(negatives @ self.text, dim=-1),
            mask,
            self.bias,
            self.kinds,
        )


def data(shift: int = 0) -> tuple[list[Tensor], Tensor]:
    """Return all ranks' inputs, row by row, with unequal numbers of negatives on the ranks."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(WORLD * B, WIDTH), (WORLD * B, P, WIDTH), (WORLD * B, K, WIDTH)]
    rows = [torch.randn(*shape, generator=generator).double() for shape in shapes]
    mask = torch.rand(WORLD * B, K, generator=generator) < 0.5
    mask[:B] = False  # the first rank has no negative at all
    mask[-B:, 1] = False  # the last one has none of the second kind
    return [part.roll(shift * B, 0) for part in rows], mask.roll(shift * B, 0)


def gather() -> None:
    rank = distributed.rank()
    assert (distributed.world_size(), distributed.is_main()) == (WORLD, rank == 0)
    # A dense tensor with exchanged strides, whose copies are laid out likewise.
    local = (torch.arange(6.0).reshape(3, 2) + 10 * rank).T.requires_grad_()
    assert not local.is_contiguous()
    whole = distributed.all_gather(local)
    expected = torch.cat([(torch.arange(6.0).reshape(3, 2) + 10 * r).T for r in range(WORLD)])
    assert torch.equal(whole, expected)
    # Rank r weighs the rows of all ranks with r + 1, and row i with i besides.
    weight = (rank + 1) * torch.arange(2.0 * WORLD).unsqueeze(1)
    (grad,) = torch.autograd.grad((whole * weight).sum(), local)
    own = torch.arange(2.0 * rank, 2.0 * rank + 2).unsqueeze(1).expand(2, 3)
    assert torch.equal(grad, (1 + 2 + 3) * own)
    for dtype in (torch.uint8, torch.int64, torch.float16, torch.float64):
        found = distributed.all_gather(torch.full((1, 2), rank, dtype=dtype))
        assert found.dtype == dtype
        assert found[:, 0].tolist() == [0, 1, 2]


def gather_twice_through_one_leaf() -> None:
    # As a loss that gathers images, captions and negatives of one tower does.
    leaf = torch.full((2, 2), float(distributed.rank()), requires_grad=True)
    first, second = distributed.all_gather(leaf), distributed.all_gather(2 * leaf)
    (first.sum() + second.square().sum()).backward()
    assert torch.equal(leaf.grad, torch.full((2, 2), WORLD + WORLD * 8.0 * distributed.rank()))


def scatter() -> None:
    """The ways back through a gather agree: with a sum of one's part alone, and of everything."""
    found, asked = [], distributed._scatters
    assert not asked(None)  # of gloo, which has it in some versions of torch only
    for scatters in (False, True):
        distributed._scatters = lambda group, own=scatters: own
        leaf = torch.arange(12.0).reshape(4, 3).T.requires_grad_()
        weight = (distributed.rank() + 1) * torch.arange(36.0).reshape(9, 4)
        distributed.all_gather(leaf).mul(weight).sum().backward()
        found.append(leaf.grad)
    distributed._scatters = asked
    first = 12 * distributed.rank()
    expected = (1 + 2 + 3) * torch.arange(first, first + 12.0).reshape(3, 4)
    assert torch.equal(found[0], expected) and torch.equal(found[1], expected)


def reduce() -> None:
    local = torch.tensor([distributed.rank() + 1, 1], dtype=torch.int64)
    assert distributed.all_reduce_sum(local).tolist() == [6, 3]
    assert local.tolist() == [distributed.rank() + 1, 1]
    assert not distributed.all_reduce_sum(torch.ones(1, requires_grad=True)).requires_grad


def broadcast() -> None:
    value = {"name": "run-7"} if distributed.is_main() else None
    assert distributed.broadcast_object(value) == {"name": "run-7"}
    distributed.barrier()


def subgroup(folder: Path) -> None:
    """Two of the ranks by themselves; the third is not waited for."""
    group = dist.new_group([0, 2])
    if distributed.rank() == 1:
        return
    assert distributed.world_size(group) == 2
    place = distributed.rank(group)
    assert place == {0: 0, 2: 1}[distributed.rank()]
    ranks = torch.full((1,), float(distributed.rank()))
    assert distributed.all_gather(ranks, group).tolist() == [0.0, 2.0]
    assert distributed.all_reduce_sum(ranks, group).item() == 2.0
    rows, mask = data()
    part = slice(place * B, (place + 1) * B)
    for make in (ClicObjective, SoftmaxNegativesObjective):
        model = Towers()
        features = model([r[part] for r in rows], mask[part])
        total = make(group=group)(features).total
        total.backward()
        grads = [p.grad for p in model.parameters()]
        torch.save((total.detach(), grads), folder / f"subgroup-{make.__name__}-{place}.pt")


def train(folder: Path) -> None:
    """Save what DistributedDataParallel makes of each objective's gradients, in one and in chunks.

    B rows have at least 48 logits, so that 30 of them make several chunks.
    """
    rank = distributed.rank()
    for shift in (0, 1):  # 1: the same rows, but each rank has its neighbour's
        rows, mask = data(shift)
        part = slice(rank * B, (rank + 1) * B)
        chunked = {f"{n}-rows": replace(o, logits_at_once=30) for n, o in objectives().items()}
        for name, objective in {**objectives(), **chunked}.items():
            model = DistributedDataParallel(Towers(name.removesuffix("-rows")))
            out = objective(model([r[part] for r in rows], mask[part]))
            out.total.backward()
            found = {
                "total": out.total.detach(),
                "terms": out.terms,
                "grads": {n: p.grad for n, p in model.module.named_parameters()},
            }
            torch.save(found, folder / f"{name}-{shift}-{rank}.pt")


def main(folder: Path) -> None:
    gather()
    gather_twice_through_one_leaf()
    if torch.__version__ >= "2.10":
        scatter()
    reduce()
    broadcast()
    subgroup(folder)
    train(folder)
