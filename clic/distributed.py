"""Process groups: the only module that talks to other ranks."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from clic.errors import ClicError, ConfigError

T = TypeVar("T")

PATIENCE = timedelta(seconds=20)
"""Time that the other ranks have, after a failure, to read what is in the store of rank 0."""
_groups = count(1)


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
        device = torch.device("cuda", _gpu(name, device.index))
    return device


def _gpu(name: str, asked: int | None) -> int:
    """Return the number of this rank's GPU among those that it sees."""
    visible, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK") or 0)
    if asked is not None and local_ranks() > 1:
        raise ConfigError(
            f"device={name!r} would put all {local_ranks()} ranks of this machine on one GPU; use "
            "device=cuda, with which each rank takes its own"
        )
    index = local if asked is None else asked
    if asked is None and visible == 1:
        index = 0  # a cluster shows each task its own GPU; `process_group` sees whether it is
    if index >= visible:
        raise ConfigError(
            f"device={name!r} needs GPU number {index}, and torch sees {visible} GPU(s); "
            "use device=cpu, or start fewer processes"
        )
    return index


def local_ranks() -> int:
    """Return how many ranks this machine has; where nobody says so, they are all taken for its."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or 1)


@contextmanager
def process_group(device: torch.device, timeout_minutes: float = 10.0) -> Iterator[None]:
    """Join torchrun's process group for the length of the block, if there is one to join.

    Args:
        device: This rank's device; NCCL is used on CUDA, gloo on the CPU.
        timeout_minutes: How long a collective waits for a missing rank before it fails, so that
            a lost rank ends the run instead of hanging it.

    Raises:
        ConfigError: Two ranks have the same GPU.
        SystemExit: Another rank failed first, whose error is the one to read; the exit code is
            that rank's.
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
    number, told = next(_groups), False
    try:
        if device.type == "cuda" and torch.cuda.device_count() == 1:
            _check_own_gpu(device)
        yield
    except BaseException as error:
        told = is_initialised()
        code = _first_failure(error, number) if told else None
        if code is not None:
            raise SystemExit(code) from error
        raise
    finally:
        # torchrun serves the store itself.
        serves = is_main() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        store = dist.distributed_c10d._get_default_store() if told and serves else None
        others = range(1, world_size())
        dist.destroy_process_group()  # on the others a collective then fails
        if store is not None:
            _wait_for(others, number, store)


def _check_own_gpu(device: torch.device) -> None:
    """Fail on every rank where ranks of a machine have the same GPU, before NCCL does."""
    group: Any = dist.new_group(backend="gloo")
    own = (socket.gethostname(), str(torch.cuda.get_device_properties(device).uuid))
    owners: list[Any] = [None] * world_size()
    dist.all_gather_object(owners, own, group=group)
    shared = [number for number, owner in enumerate(owners) if owners.count(owner) > 1]
    if shared:
        raise ConfigError(
            f"ranks {', '.join(map(str, shared))} see one and the same GPU; start one process for "
            "each GPU (torchrun --nproc-per-node=N), or let each task see a GPU of its own"
        )


def _first_failure(error: BaseException, number: int) -> int | None:
    """Return the exit code of the rank that failed first, None where this one's error counts.

    What a rank meets after another has left, such as a closed connection, is no news. So the first
    to fail leaves its exit code in the ranks' store before its connections close, and those that
    fail later find it there.
    """
    code = 1
    if isinstance(error, ClicError | OSError):
        code = 2
    elif isinstance(error, KeyboardInterrupt):
        code = 130
    store = dist.distributed_c10d._get_default_store()
    try:
        found = store.compare_set(f"clic/failed/{number}", "", f"{code} {rank()}")
        store.set(f"clic/left/{number}/{rank()}", "")
    except RuntimeError:  # rank 0, which serves the store, has been killed
        return None
    first, owner = map(int, found.split())
    # All ranks stop together when they are told to, so each of them has its own say then.
    return None if owner == rank() or code == 130 else first


def _wait_for(ranks: Iterable[int], number: int, store: Any) -> None:
    """Keep rank 0 until others have read its store, which goes with it, or have had their time."""
    with suppress(RuntimeError):
        store.wait([f"clic/left/{number}/{other}" for other in ranks], PATIENCE)


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
