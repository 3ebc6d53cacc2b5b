"""Ranks and devices: the only module that communicates between processes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from clic.errors import ClicError, ConfigError
from clic.heartbeat import Heartbeat, describe, failed_key

T = TypeVar("T")

PATIENCE = timedelta(seconds=20)
"""Time for the other ranks to read rank 0's store after a failure."""
_groups = count(1)
_host_group: ProcessGroup | None = None
"""Process group for collectives on the CPU; None is the default group."""


class LostRankError(ClicError):
    """Another rank has disappeared without reporting an error."""


def is_initialised() -> bool:
    """Return whether this process has joined a process group."""
    return dist.is_available() and dist.is_initialized()


def rank(group: ProcessGroup | None = None) -> int:
    """Return this process's rank, or 0 without a process group."""
    return dist.get_rank(group) if is_initialised() else 0


def world_size(group: ProcessGroup | None = None) -> int:
    """Return the number of ranks W, or 1 without a process group."""
    return dist.get_world_size(group) if is_initialised() else 1


def is_main() -> bool:
    """Return whether this is rank 0, which writes files and prints."""
    return rank() == 0


def barrier() -> None:
    """Wait until every rank has reached this point."""
    if is_initialised():
        dist.barrier()


def choose_device(name: str = "auto") -> torch.device:
    """Return this rank's device.

    `auto` is CUDA if there is a GPU, otherwise the CPU; the other choices are `cpu`, `cuda`
    (under torchrun, the GPU of the local rank) and `cuda:N`.

    Raises:
        ConfigError: `name` is not a device, or names a GPU that does not exist.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    choices = "(choices: auto, cpu, cuda, cuda:N)"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device={name!r} is not a device {choices}") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={name!r} is not supported {choices}")
    if device.type == "cuda":
        device = torch.device("cuda", _gpu(name, device.index))
    return device


def _gpu(name: str, asked: int | None) -> int:
    """Return the index of this rank's GPU among the visible ones."""
    visible, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK") or 0)
    if asked is not None and local_ranks() > 1:
        raise ConfigError(
            f"device={name!r} would put all {local_ranks()} ranks of this machine on one GPU; use "
            "device=cuda, with which each rank takes its own"
        )
    index = local if asked is None else asked
    if asked is None and visible == 1:
        index = 0  # a cluster shows each task only its own GPU; `process_group` checks this
    if index >= visible:
        raise ConfigError(
            f"device={name!r} needs GPU number {index}, and torch sees {visible} GPU(s); "
            "use device=cpu, or start fewer processes"
        )
    return index


def local_ranks() -> int:
    """Return the number of ranks on this machine; without LOCAL_WORLD_SIZE, all of them."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or 1)


@contextmanager
def matrix_products(tf32: bool) -> Iterator[None]:
    """Let a GPU compute fp32 products and convolutions in TF32 (10-bit mantissa) or in full.

    The previous setting is restored after the block.
    """
    try:
        products, convolutions = (
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
        )
    except RuntimeError:  # torch refuses once a program has set its newer flags; keep to those
        with _fp32_precision("tf32" if tf32 else "ieee"):
            yield
        return
    try:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def _fp32_precision(precision: str) -> Iterator[None]:
    backends: Any = torch.backends
    owners = (backends.cuda.matmul, backends.cudnn.conv)
    before = [owner.fp32_precision for owner in owners]
    try:
        for owner in owners:
            owner.fp32_precision = precision
        yield
    finally:
        for owner, value in zip(owners, before, strict=True):
            owner.fp32_precision = value


@contextmanager
def process_group(device: torch.device, timeout_minutes: float = 10.0) -> Iterator[None]:
    """Join torchrun's process group, if there is one, for the duration of the block.

    CUDA uses NCCL, the CPU gloo. If a rank is killed or its process hangs, the others end within a
    minute (see `Heartbeat`). A collective also fails if a rank does not reach it within
    `timeout_minutes`.

    Raises:
        LostRankError: Another rank has been killed, or its machine is gone.
        ConfigError: Two ranks share a GPU.
        SystemExit: Another rank failed first, so its error is the one to read; the exit code is
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
    number, reported, ended = next(_groups), False, False
    alive = Heartbeat(dist.distributed_c10d._get_default_store(), number, rank(), world_size())
    try:
        _make_host_group(timedelta(minutes=timeout_minutes))
        dist.barrier(_host_group)  # every rank has shown a sign of life
        alive.start()
        if device.type == "cuda" and torch.cuda.device_count() == 1:
            _check_own_gpu(device)
        yield
        ended = True
    except BaseException as error:
        reported = is_initialised()
        # A broken collective means that another rank failed, so find out which before leaving: a
        # rank that left at once would stop its signs of life, and rank 0 would stop watching.
        lost = alive.reason() if reported and _is_broken_collective(error) else None
        if lost is not None and rank() > 1:  # rank 0 reports it, or rank 1 if rank 0 is lost
            raise SystemExit(1) from error
        code = _first_failure(error, number) if reported else None
        if code is not None:
            raise SystemExit(code) from error
        if lost is not None:
            raise LostRankError(describe(lost)) from error
        raise
    finally:
        if ended:
            with suppress(RuntimeError):  # torchrun's store may end before its ranks
                alive.wait_for_others()
        alive.stop()
        _leave(alive, number, reported)


def _leave(alive: Heartbeat, number: int, reported: bool) -> None:
    """Leave the process group; after a failure, first give the other ranks time to read why."""
    if reported:  # only now: once rank 0 has read this, it may end, and its store with it
        _say_left(number)
    # Under torchrun's agent, the store outlives rank 0.
    serves = is_main() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = dist.distributed_c10d._get_default_store() if reported and serves else None
    here = set(range(1, world_size())).difference(alive.silent())
    others = [f"clic/left/{number}/{other}" for other in here]
    _leave_host_group()
    dist.destroy_process_group()  # collectives of the other ranks then fail
    if store is not None:  # it ends with this process, so give the others time to read it
        with suppress(RuntimeError):
            store.wait(others, PATIENCE)


def _make_host_group(timeout: timedelta) -> None:
    """Make a gloo group, for collectives without the GPUs, unless the default group is one."""
    global _host_group
    made: Any = (
        None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo", timeout=timeout)
    )
    _host_group = made


def _leave_host_group() -> None:
    global _host_group
    _host_group = None


def any_rank(condition: bool) -> bool:
    """Return on every rank whether the condition holds on any; all ranks must call this.

    Only the processes wait for each other; their GPUs keep working on what is queued.
    """
    if world_size() == 1:
        return condition
    holds = torch.tensor(float(condition))
    dist.all_reduce(holds, group=_host_group)
    return bool(holds)


def _is_broken_collective(error: BaseException) -> bool:
    """Return whether an error may come from another rank that has gone."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and ("gloo" in str(error) or "Connection" in str(error))


def _check_own_gpu(device: torch.device) -> None:
    """Fail on every rank if two ranks of a machine share a GPU, before NCCL does."""
    group: Any = dist.new_group(backend="gloo")
    own = (socket.gethostname(), str(torch.cuda.get_device_properties(device).uuid))
    owners: list[Any] = [None] * world_size()
    dist.all_gather_object(owners, own, group=group)
    shared = [number for number, owner in enumerate(owners) if owners.count(owner) > 1]
    if shared:
        raise ConfigError(
            f"ranks {', '.join(map(str, shared))} see one and the same GPU; start one process per "
            "GPU (torchrun --nproc-per-node=N), or let each task see a GPU of its own"
        )


def _first_failure(error: BaseException, number: int) -> int | None:
    """Return the exit code of the rank that failed first, or None if that is this rank.

    Once a rank has left, the others fail too, with uninformative errors such as a closed
    connection. So the first rank to fail puts its exit code into the shared store before its
    connections close, and the others find it there.
    """
    code = 2 if isinstance(error, ClicError | OSError) else 1
    code = 130 if isinstance(error, KeyboardInterrupt) else code
    store = dist.distributed_c10d._get_default_store()
    try:
        found = store.compare_set(failed_key(number), "", f"{code} {rank()}")
    except RuntimeError:  # rank 0, which serves the store, has been killed
        return None
    first, owner = map(int, found.split())
    # An interrupt stops all ranks together, so each reports its own exit code.
    return None if owner == rank() or code == 130 else first


def _say_left(number: int) -> None:
    """Tell rank 0, which waits until no other rank needs its store, that this one is done.

    Nothing may use the store after this: torch would report the closed connection on stderr.
    """
    with suppress(RuntimeError):
        dist.distributed_c10d._get_default_store().set(f"clic/left/{number}/{rank()}", "")


def broadcast_object(value: T) -> T:
    """Return rank 0's `value` on every rank; it must be picklable and trusted."""
    if not is_initialised():
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(value: T) -> list[T]:
    """Return the values of all ranks, in order of rank; they must be picklable and trusted."""
    if not is_initialised():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def collective_device() -> torch.device:
    """Return the device that collectives need: NCCL supports only tensors on a GPU."""
    if is_initialised() and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


# torch 2.14 renamed them.
_gather_single: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_scatter_single: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class _AllGather(torch.autograd.Function):
    """Concatenate over ranks; the backward pass sums all ranks' gradients of our part."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, group: ProcessGroup | None) -> Tensor:
        ctx.group = group
        rows = local.shape[0] * world_size(group)
        whole = local.new_empty(rows, *local.shape[1:])
        _gather_single(whole, local.contiguous(), group=group)
        return whole

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        grad, group = grad_outputs[0].contiguous(), ctx.group
        ranks = world_size(group)
        if _scatters(group):  # each rank receives only the sum of its own part
            own = grad.new_empty(grad.shape[0] // ranks, *grad.shape[1:])
            _scatter_single(own, grad, group=group)
            return own, None
        grad = grad.clone()
        dist.all_reduce(grad, group=group)
        return grad.chunk(ranks)[rank(group)], None


def _scatters(group: ProcessGroup | None) -> bool:
    """Return whether the backend can reduce-scatter, which gloo cannot in every torch."""
    return dist.get_backend(group) != "gloo"


def all_gather(local: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """Concatenate every rank's tensor [B, ...] to [W * B, ...] in order of rank, with gradient.

    The backward pass returns the sum over ranks of their gradients with respect to our part, so
    that data-parallel averaging gives the gradient of the mean of the ranks' losses.
    """
    if world_size(group) == 1:
        return local
    return _AllGather.apply(local, group)


def all_reduce_sum(local: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """Return the sum over ranks, without gradient; `local` is not changed."""
    total = local.detach().clone()
    if world_size(group) > 1:
        dist.all_reduce(total, group=group)
    return total
