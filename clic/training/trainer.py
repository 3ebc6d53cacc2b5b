"""The training loop: a step, and what is done around it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from clic import distributed, images, models, optim
from clic.checkpoint import TrainingState
from clic.config import Config, LossConfig
from clic.data.faults import FaultLog
from clic.errors import ClicError, ConfigError, pick
from clic.losses import OBJECTIVES, Objective
from clic.losses.registry import SOFTMAX, choices
from clic.models import ClipModel
from clic.seeding import generator, seed_torch
from clic.training.metrics_log import Averages, MetricsLog, missing_negatives
from clic.training.stopping import stop_requests
from clic.types import KINDS, Batch, Kind, Tally

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MAX_LOGIT_SCALE = math.log(100)


class TrainingError(ClicError):
    """The numbers of the run went wrong, e.g. the loss is no longer finite."""


def make_objectives(loss: LossConfig) -> dict[Kind, Objective]:
    """Return the objective of each kind of batch."""
    return {kind: pick(OBJECTIVES, getattr(loss, kind), f"loss.{kind}").of(loss) for kind in KINDS}


def check_softmax(config: Config, model: torch.nn.Module) -> None:
    """Refuse an objective that cannot train a sigmoid model, before the run has a folder.

    Raises:
        ConfigError: The objective of a kind of batch that is used needs a softmax.
    """
    if getattr(model, "logit_bias", None) is None:
        return
    for kind in (kind for kind in KINDS if config.sampling.kinds in ("alternate", kind)):
        name = getattr(config.loss, kind)
        if OBJECTIVES[name].needs_now(SOFTMAX, config.loss):
            able = [n for n in choices(kind) if SOFTMAX not in OBJECTIVES[n].needs]
            raise ConfigError(
                f"loss.{kind}={name} needs a softmax, and this model has a logit_bias (sigmoid "
                f"loss); set loss.{kind} to {' or '.join(able)}"
            )


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the forward pass.

    Raises:
        ConfigError: The device cannot do it.
    """
    if precision == "auto":
        if device.type == "cpu":
            return torch.float32
        precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    dtype = pick(DTYPES, precision, "train.precision")
    if dtype is torch.float16 and device.type == "cpu":
        raise ConfigError("train.precision=fp16 needs a GPU; use fp32 or bf16 on the CPU")
    return dtype


class Trainer:
    """Everything that changes from step to step: weights, optimizer, scaler, number of the step.

    Args:
        config: The run's settings, validated.
        clip: The model, on its device; its trained part is set here.
        steps: Length of the run.
        samples: Number of the data's samples, which a checkpoint keeps.
    """

    def __init__(self, config: Config, clip: ClipModel, steps: int, samples: int = 0) -> None:
        self.config, self.clip, self.steps, self.samples = config, clip, steps, samples
        self.device = clip.device
        self.trained = models.set_trainable(
            clip.model, config.model.train, config.model.train_logit_scale
        )
        if config.model.grad_checkpointing:
            models.enable_grad_checkpointing(clip.model)
        self.dtype = autocast_dtype(config.train.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        check_softmax(config, clip.model)
        self.objectives = make_objectives(config.loss)
        self.optimizer = optim.adamw(
            clip.model,
            lr=config.optim.lr,
            weight_decay=config.optim.weight_decay,
            betas=(config.optim.betas[0], config.optim.betas[1]),
            eps=config.optim.eps,
        )
        self.lr_at = optim.make_schedule(
            config.optim.schedule,
            lr=config.optim.lr,
            steps=steps,
            warmup_steps=_warmup_steps(config, steps),
            lr_start=config.optim.lr_start,
            lr_end=config.optim.lr_end,
        )
        extractor = models.FeatureExtractor(clip.model, self.trained)
        self.trim = extractor.trim
        self.features: torch.nn.Module = extractor
        if distributed.world_size() > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            self.features = DistributedDataParallel(self.features, device_ids=ids)
        # What is frozen stays as it is; and sigmoid models (logit_bias) may start above 100.
        self.clamps = (
            config.train.clamp_logit_scale
            and clip.model.logit_scale.requires_grad
            and getattr(clip.model, "logit_bias", None) is None
        )
        self.faults = FaultLog(config.data.max_broken, self.device)
        self.done = 0

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Train on one batch; return the loss and its terms, named by the batch's kind."""
        lr = self.lr_at(batch.step)
        optim.set_lr(self.optimizer, lr)
        # Dropout is then a function of (seed, step, rank) too, and resuming needs no stored state.
        seed_torch(int(self._step_generator(batch.step).integers(2**63)))
        batch = self.trim(batch).to(self.device)
        pixels = images.normalise(batch.images, batch.mean, batch.std)
        with torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32
        ):
            features = self.features(pixels, batch.positives, batch.negatives, batch.negative_mask)
        if batch.negative_kinds:
            features = replace(features, negative_kinds=batch.negative_kinds)
        output = self.objectives[batch.kind](features)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(output.total).backward()
        report = {
            "loss": output.total.detach(),
            **{f"{batch.kind}/{name}": value for name, value in output.terms.items()},
            **missing_negatives(batch),
        }
        if self.config.optim.grad_clip is not None:
            self.scaler.unscale_(self.optimizer)
            report["grad_norm"] = torch.nn.utils.clip_grad_norm_(
                self.clip.model.parameters(), self.config.optim.grad_clip
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.clamps:
            with torch.no_grad():
                self.clip.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        self.done = batch.step + 1
        return report

    def _step_generator(self, step: int) -> Any:
        return generator(self.config.seed, "dropout", step, distributed.rank())

    def fit(
        self,
        batches: Iterable[Batch],
        log: MetricsLog,
        save: Callable[[TrainingState], None],
        evaluate: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        """Train to the end, or to the end of the step in which the process is told to stop.

        Args:
            batches: Batches of the steps from `done` on.
            log: Where records go.
            save: Writes a checkpoint.
            evaluate: Called every `train.eval_every` steps.

        Raises:
            TrainingError: The loss is not finite.
            DataError: Too many samples are broken.
            KeyboardInterrupt: The process was told to stop; a checkpoint was written.
        """
        train, averages, clock = self.config.train, Averages(), time.perf_counter()
        first = self.done
        models.set_mode(self.clip.model, self.trained)
        with stop_requests() as stop:
            for batch in batches:
                self.faults.add(batch)
                averages.add(self.step(batch))
                last = self.done == self.steps
                stopping = self._agreed(stop)
                saving = not last and (stopping or self._due(train.save_every))
                logging = last or self._due(train.log_every)
                means = averages.means() if saving or logging else {}
                self._check_finite(means)  # before a checkpoint is made of it
                if saving or logging:
                    self.faults.gather()
                if logging:
                    seconds, clock = time.perf_counter() - clock, time.perf_counter()
                    log.log(self._record(means, self.done - first, seconds))
                    first = self.done
                    averages.clear()
                paused = time.perf_counter()
                if evaluate and (last or self._due(train.eval_every)):
                    log.log({"step": self.done, **evaluate()})
                    models.set_mode(self.clip.model, self.trained)
                if saving:
                    save(self.state())
                clock += time.perf_counter() - paused  # the rate is that of training alone
                if stopping and not last:
                    raise KeyboardInterrupt

    def _due(self, every: int) -> bool:
        return every > 0 and self.done % every == 0

    def _agreed(self, stop: list[int]) -> bool:
        """Return whether to stop now; several ranks ask each other when they log."""
        if distributed.world_size() == 1:
            return bool(stop)
        if not self._due(self.config.train.log_every):
            return False
        wanted = torch.tensor(float(bool(stop)), device=self.device)
        return bool(distributed.all_reduce_sum(wanted))

    def _check_finite(self, means: dict[str, float]) -> None:
        if not math.isfinite(means.get("loss", 0.0)):
            raise TrainingError(
                f"the loss is {means['loss']} by step {self.done}; lower optim.lr, or use "
                "train.precision=fp32 to see whether the precision is at fault"
            )

    def _record(self, means: dict[str, float], steps: int, seconds: float) -> dict[str, Any]:
        count = steps * self.config.train.batch_size * distributed.world_size()
        record: dict[str, Any] = {
            "step": self.done,
            **means,
            **self.faults.record(),
            "lr": self.lr_at(self.done - 1),
            "logit_scale": self.clip.model.logit_scale.exp().item(),
            "images_per_second": count / seconds,
        }
        if self.device.type == "cuda":
            record["peak_memory_gb"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        return record

    def state(self) -> TrainingState:
        """Return what a checkpoint keeps besides the weights."""
        return TrainingState(
            step=self.done,
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            batch_size=self.config.train.batch_size,
            world_size=distributed.world_size(),
            samples=self.samples,
            tally=asdict(self.faults.total),
        )

    def restore(self, state: TrainingState) -> None:
        """Continue from a checkpoint whose weights are already in the model.

        Raises:
            ConfigError: The checkpoint trained other parameters, or this run ends before it.
        """
        if state.step >= self.steps:
            raise ConfigError(
                f"the checkpoint has done {state.step} steps and this run has {self.steps}; raise "
                "train.max_steps or train.epochs, or use train.resume=never"
            )
        settings = [{k: g[k] for k in ("weight_decay", "betas", "eps")} for g in self._groups()]
        try:
            self.optimizer.load_state_dict(state.optimizer)
        except ValueError as error:
            raise ConfigError(
                f"the checkpoint was trained with another model.train than "
                f"{self.config.model.train} (or model.train_logit_scale); use the same, or "
                "start from its weights: model.name=CHECKPOINT train.resume=never"
            ) from error
        for group, own in zip(self._groups(), settings, strict=True):
            group.update(own)  # this run's settings, not those it was saved with
        self.scaler.load_state_dict(state.scaler)
        self.faults.total = Tally(**state.tally)
        self.done = state.step

    def _groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups


def _warmup_steps(config: Config, steps: int) -> int:
    if config.optim.warmup_fraction is not None:
        return math.floor(config.optim.warmup_fraction * steps)
    return config.optim.warmup_steps or 0
