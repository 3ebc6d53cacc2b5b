"""How training uses the machine: device, precision, ranks, and requests to stop.

There is one strategy, data-parallel training with one process per device. Another one, such as
sharded weights, would have the same methods and leave the trainer unchanged.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clic import distributed
from clic.config.train_settings import TrainConfig
from clic.errors import ClicError, ConfigError, pick
from clic.io.processes import cpu_has_bf16
from clic.training import compiling

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a run to stop: Ctrl-C, a cluster, and a terminal that is closed."""
PREEMPTION = (signal.SIGUSR1, signal.SIGUSR2)
"""Signals that a launcher may handle by requeueing the job."""
CPU_FULL = "DefaultCPUAllocator"
"""Marks torch's out-of-memory error on the CPU, which has no exception class of its own."""


class OutOfMemoryError(ClicError):
    """A step needs more memory than the device has."""


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the forward pass on a device with the setting `train.precision`.

    Raises:
        ConfigError: The device does not support it.
    """
    if precision == "auto":
        if device.type == "cpu":
            return torch.float32
        # GPUs before Ampere only emulate bf16, which is slower than fp32.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if native else "fp16"
    dtype = pick(DTYPES, precision, "train.precision")
    if dtype is torch.float16 and device.type == "cpu":
        raise ConfigError("train.precision=fp16 needs a GPU; use fp32 or bf16 on the CPU")
    return dtype


class DataParallel:
    """Every rank has the whole model and trains on its own part of the batch.

    Attributes:
        dtype: That of the forward pass.
        tf32: Whether fp32 matrix products use TF32: only on a GPU and only in fp32. In half
            precision, only the losses multiply in fp32, and they keep all of its bits.
    """

    def __init__(self, device: torch.device, precision: str, tf32: bool = True) -> None:
        self.device, self.dtype = device, autocast_dtype(precision, device)
        self.tf32 = tf32 and device.type == "cuda" and self.dtype is torch.float32

    def emulates_bf16(self) -> bool:
        """Return whether the forward pass is in bf16 on a CPU that only emulates it."""
        slow = self.device.type == "cpu" and self.dtype is torch.bfloat16
        return slow and cpu_has_bf16() is False

    def scaler(self) -> torch.amp.GradScaler:
        """Return the gradient scaler, which does nothing without fp16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)

    def autocast(self) -> torch.autocast:
        """Return the context of the forward pass."""
        mixed = self.dtype is not torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=mixed)

    def products(self) -> AbstractContextManager[None]:
        """Return the context of forward and backward pass, which sets TF32 on a GPU."""
        return (
            distributed.matrix_products(self.tf32) if self.device.type == "cuda" else nullcontext()
        )

    def wrap(self, module: nn.Module, find_unused: bool) -> nn.Module:
        """Return a module on its device with its gradients averaged over ranks.

        `find_unused` means that some of its trained parameters get no gradient in some steps.
        """
        if distributed.world_size() == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=find_unused)

    def no_sync(self, module: nn.Module) -> AbstractContextManager[None]:
        """Return a context whose backward passes do not average a wrapped module's gradients.

        The next backward pass outside it averages all of them.
        """
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    @contextmanager
    def naming_settings(self, train: TrainConfig) -> Iterator[None]:
        """Turn failures in a step into an error that names the setting to change.

        Raises:
            OutOfMemoryError: The device had no memory left.
            CompilationError: The model could not be compiled.
        """
        try:
            yield
        except RuntimeError as error:
            failed = compiling.failure(error) if train.compile else None
            if failed is not None:
                raise failed from error
            if not isinstance(error, torch.OutOfMemoryError) and CPU_FULL not in str(error):
                raise
            at_once = train.micro_batch or train.batch_size
            remedy = (
                f"set train.micro_batch={at_once // 2}, which gives the gradient of the whole "
                "batch, or model.grad_checkpointing=true"
                if at_once > 1
                else "use model.grad_checkpointing=true or a smaller model"
            )
            raise OutOfMemoryError(
                f"{self.device} has no memory left for {at_once} rows at once "
                f"(train.batch_size={train.batch_size}, train.micro_batch={train.micro_batch}); "
                f"{remedy}; the same command then continues from the last checkpoint"
            ) from error


def is_asked_to_stop(received: list[int]) -> bool:
    """Return whether `stop_requests` has collected a signal, or does so within a second.

    A signal to all processes of a job may end a compiler before it reaches the training process.
    """
    end = time.monotonic() + 1.0
    while not received and time.monotonic() < end:
        time.sleep(0.05)
    return bool(received)


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP in a list instead of dying; a second SIGINT kills at once.

    Ignored signals stay ignored, such as SIGHUP under `nohup`. A launcher's own handler for
    preemption is called at the end, once the run has saved its state.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        if number == signal.SIGINT and distributed.is_main():  # a long step gives no other sign
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")
        received.append(number)

    handlers = {number: signal.getsignal(number) for number in STOPS}
    handlers = {n: given for n, given in handlers.items() if given != signal.SIG_IGN}
    handlers |= {n: signal.getsignal(n) for n in PREEMPTION if callable(signal.getsignal(n))}
    try:
        for number in handlers:
            signal.signal(number, receive)
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for preemption in set(received) & set(PREEMPTION):
            signal.raise_signal(preemption)
