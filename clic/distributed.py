"""Process groups: the only module that talks to other ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from clic.errors import ConfigError

T = TypeVar("T")


def is_initialised() -> bool:
    """Return whether a process group runs."""
    return dist.is_available() and dist.is_initialized()


def rank(group: ProcessGroup | None = None) -> int:
    """Return this process's rank, 0 without a process group."""
    return dist.get_rank(group) if is_initialised() else 0


def world_size(group: ProcessGroup | None = None) -> int:
    """Return the number of ranks W, 1 without a process group."""
    return dist.get_world_size(group) if is_initialised() else 1


def is_main() -> bool:
    """Return whether this process is the one that writes and prints (rank 0)."""
    return rank() == 0


def barrier() -> None:
    """Wait until every rank has arrived here."""
    if is_initialised():
        dist.barrier()


def choose_device(name: str = "auto") -> torch.device:
    """Return this rank's device.

    Args:
        name: ``"auto"`` (CUDA where there is a GPU, else the CPU), ``"cpu"``, ``"cuda"`` or
            ``"cuda:N"``; under torchrun ``"cuda"`` is the GPU of the local rank.

    Raises:
        ConfigError: `name` is no device, or asks for a GPU where there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"device={name!r} is no device (choices: auto, cpu, cuda, cuda:N)"
        ) from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={name!r} is not supported (choices: auto, cpu, cuda, cuda:N)")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        index = device.index if device.index is not None else int(os.environ.get("LOCAL_RANK", 0))
        if index >= count:
            raise ConfigError(
                f"device={name!r} needs GPU number {index}, and torch sees {count} GPU(s); "
                "use device=cpu, or start fewer processes"
            )
        device = torch.device("cuda", index)
    return device


@contextmanager
def process_group(device: torch.device, timeout_minutes: float = 10.0) -> Iterator[None]:
    """Join torchrun's process group for the length of the block, if there is one to join.

    Args:
        device: This rank's device; NCCL is used on CUDA, gloo on the CPU.
        timeout_minutes: How long a collective waits for a missing rank before it fails, so that
            a lost rank ends the run instead of hanging it.
    """
    if int(os.environ.get("WORLD_SIZE") or "1") == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        backend="nccl" if device.type == "cuda" else "gloo",
        timeout=timedelta(minutes=timeout_minutes),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def broadcast_object(value: T) -> T:
    """Return rank 0's `value` on every rank (any picklable object of our own making)."""
    if not is_initialised():
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(value: T) -> list[T]:
    """Return every rank's `value`, by rank, on every rank (picklable objects of our own making)."""
    if not is_initialised():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def collective_device() -> torch.device:
    """Return where a tensor must lie for a collective: NCCL knows nothing but GPUs."""
    if is_initialised() and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


class _AllGather(torch.autograd.Function):
    """Concatenate over ranks; the backward pass sums what every rank sends to our part."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, group: ProcessGroup | None) -> Tensor:
        ctx.group = group
        local = local.contiguous()  # also for empty_like, which keeps the strides of its model
        parts = [torch.empty_like(local) for _ in range(world_size(group))]
        dist.all_gather(parts, local, group=group)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        grad = grad_outputs[0].contiguous().clone()
        # gloo has no reduce_scatter on the versions we support, so: all_reduce, keep our slice.
        dist.all_reduce(grad, group=ctx.group)
        return grad.chunk(world_size(ctx.group))[rank(ctx.group)], None


def all_gather(local: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """Concatenate a tensor of every rank along the first axis, with gradient.

    The gradient that comes back is the sum over ranks of their gradients with respect to our
    part, so that data-parallel averaging gives the gradient of the mean of the ranks' losses.

    Args:
        local: [B, ...], the same shape on every rank.
        group: Process group, None for the default one.

    Returns:
        [W * B, ...]; rank r's part is rows r * B to (r + 1) * B.
    """
    if world_size(group) == 1:
        return local
    return _AllGather.apply(local, group)


def all_reduce_sum(local: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """Return the sum over ranks, without gradient; `local` is left as it is."""
    total = local.detach().clone()
    if world_size(group) > 1:
        dist.all_reduce(total, group=group)
    return total
