"""The training step, and the loop around it."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor
from torch.compiler import set_stance

from clic import distributed, models
from clic.config.train_settings import Config
from clic.data.batches.faults import FaultLog
from clic.errors import ClicError, ConfigError, ModelError
from clic.models import ClipModel
from clic.parts import parse
from clic.seeding import seed_step, seed_torch
from clic.training import optim
from clic.training.assembly import make_objectives, make_pass, make_rates
from clic.training.best import BestSoFar
from clic.training.checkpoint import TrainingState
from clic.training.compiling import CompilationError, compile_towers
from clic.training.frozen_base import FrozenBase
from clic.training.metrics_log import Averages, MetricsLog, missing_negatives
from clic.training.profiling import FORWARD, TO_DEVICE, UPDATE, StepProfiler
from clic.training.strategy import DataParallel, is_asked_to_stop, stop_requests
from clic.training.trained_parts import freeze_unreached
from clic.types import Batch, Tally

MAX_LOGIT_SCALE = math.log(100)
SKIPPED = "skipped_steps"
RECENT = 1000  # steps whose samples are remembered until the device reports which were skipped
NAMED = 8  # samples of a skipped step that are named


class TrainingError(ClicError):
    """The numbers of the run went wrong, e.g. the loss is no longer finite."""


class SkippedTooOftenError(TrainingError):
    """Too many steps in a row were skipped.

    Args:
        message: The text for the user.
        step: The last of these steps.
        samples: The keys of its rows on this rank.
    """

    def __init__(self, message: str, step: int, samples: list[tuple[str, ...]]) -> None:
        super().__init__(message)
        self.step, self.samples = step, samples


class Trainer:
    """The state that changes from step to step: weights, optimizer, gradient scaler, step number.

    It freezes what does not train. `steps` is the length of the run; `samples`, the number of
    samples in the data, is stored in checkpoints.
    """

    def __init__(self, config: Config, clip: ClipModel, steps: int, samples: int = 0) -> None:
        self.config, self.clip, self.steps, self.samples = config, clip, steps, samples
        self.device = clip.device
        self.adapters = self._make_adapters()
        self.trained = models.set_trainable(
            clip.model, config.model.train, config.model.train_logit_scale
        )
        self._check_weights(ModelError, "as loaded; use other weights")
        self.strategy = DataParallel(self.device, config.train.precision, config.train.tf32)
        self.scaler = self.strategy.scaler()
        rates = make_rates(config, clip.model, steps)
        self.optimizer, self.lr_at, self.factors = rates.optimizer, rates.at, rates.factors
        self.features = models.FeatureExtractor(clip.model, self.trained)
        self.plan = self.features.planner(config.train.micro_batch, config.train.pack_texts)
        losses = models.LossModule(self.features, make_objectives(config))
        uneven = freeze_unreached(losses, clip, config)
        # A vision tower without trained parameters counts as frozen: its statistics stay fixed.
        vision = any(parameter.requires_grad for parameter in clip.model.visual.parameters())
        self.trained = self.features.trained = replace(self.trained, vision=vision)
        base = FrozenBase(clip, self.trained) if config.train.distill_weight else None
        if config.model.grad_checkpointing:  # only now, as it hides recomputed parts of the graph
            models.enable_grad_checkpointing(clip.model)
        if config.train.compile:
            compile_towers(self.features, *([base.features] if base is not None else []))
        self.passes = make_pass(config, losses, self.strategy, base, uneven)
        decay = config.train.ema
        self.average = optim.MovingAverage(clip.model, decay) if decay else None
        self.best = BestSoFar(config.train.best_metric, config.train.patience)
        # A frozen scale stays as it is, and sigmoid models (logit_bias) may start above 100.
        softmax = getattr(clip.model, "logit_bias", None) is None
        trains_scale = softmax and clip.model.logit_scale.requires_grad
        self.clamps = config.train.clamp_logit_scale and trains_scale
        self.faults = FaultLog(config.data.max_broken, self.device)
        self.skipped = optim.SkippedSteps(self.device)
        self.statistics = optim.RunningStatistics(clip.model)
        # Each step's number and samples, to name them if the device reports the step as skipped.
        self._recent: deque[tuple[int, list[tuple[str, ...]]]] = deque(maxlen=RECENT)
        self.rate, self.done = 0.0, 0
        self.profiler: StepProfiler | None = None  # set if the run is profiled

    def _make_adapters(self) -> models.Adapters | None:
        """Put adapters into the model if the settings ask for any."""
        own, towers = self.config.model, parse(self.config.model.train).lora
        if not towers:
            return None
        seed_torch(self.config.seed)  # the same on every rank
        return models.Adapters(self.clip.model, towers, own.lora_rank, own.lora_alpha)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Train on one batch; return the loss and its terms, named by the batch's kind."""
        self.rate = self.lr_at(batch.step)
        optim.set_lr(self.optimizer, self.rate)
        seed_step(self.config.seed, batch.step, distributed.rank())
        batch = self.plan(batch)  # if the loader has not done so
        self.statistics.remember()
        with self.strategy.naming_settings(self.config.train), self.strategy.products():
            with self._stage(TO_DEVICE):
                batch = batch.to(self.device)
            self.optimizer.zero_grad(set_to_none=True)
            with self._stage(FORWARD):
                scale = self.scaler.scale
                turning = scale if self.profiler is None else self.profiler.turning(scale)
                output = self.passes(batch, turning)
        # The optimizer takes the memory of its moments in its first step.
        with self._stage(UPDATE), self.strategy.naming_settings(self.config.train):
            update = self._update(batch.step + 1)
        report = {
            "loss": output.total.detach(),
            **{f"{batch.kind}/{name}": value for name, value in output.terms.items()},
            **missing_negatives(batch),
            **update,
        }
        self.done = batch.step + 1
        self._recent.append((self.done, batch.keys))
        return report

    def _stage(self, name: str) -> AbstractContextManager[None]:
        """Return a context whose time counts for a stage, if the run is profiled."""
        return nullcontext() if self.profiler is None else self.profiler.stage(name)

    def _update(self, number: int) -> dict[str, Tensor]:
        """Update the weights, unless a gradient is not finite; return what the log reports."""
        clip = self.config.optim.grad_clip
        self.scaler.unscale_(self.optimizer)
        norm, skipped = optim.step_if_finite(self.optimizer, self.clip.model.parameters(), clip)
        self.scaler.update()
        self.skipped.add(skipped, number)
        self.statistics.put_back(skipped)
        if self.clamps:
            with torch.no_grad():
                self.clip.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        if self.average is not None:
            self.average.update(skipped)
        report = {SKIPPED: skipped}
        if clip is not None:
            report["grad_norm"] = norm  # not finite if the step was skipped
        return report

    def fit(
        self,
        batches: Iterable[Batch],
        log: MetricsLog,
        save: Callable[[TrainingState], None],
        evaluate: Callable[[], dict[str, float]] | None = None,
        keep: Callable[[BestSoFar], None] = lambda best: None,
    ) -> None:
        """Train on the batches from step `done` on, until the end or a signal that asks to stop.

        `save` writes a checkpoint. `evaluate` is called every `train.eval_every` steps and returns
        the same scores on every rank; after the best of them, `keep` writes the model. Both see the
        average of the weights, if the run has one.

        Raises:
            TrainingError: The weights are not finite, or too many steps were skipped.
            DataError: Too many samples are broken.
            KeyboardInterrupt: A signal asked the process to stop; a checkpoint was written.
        """
        train, averages, clock = self.config.train, Averages(), time.perf_counter()
        first, began, ended = self.done, self.done, False
        models.set_mode(self.clip.model, self.trained)
        with stop_requests() as stop:
            for batch in batches if self.profiler is None else self.profiler.waiting(batches):
                self.faults.add(batch)
                averages.add(self._step_or_stop(batch, stop, began, save))
                last = self.done == self.steps
                stopping = distributed.any_rank(bool(stop))
                saving = not last and (stopping or self._due(train.save_every))
                logging = last or self._due(train.log_every)
                means = averages.means() if saving or logging else {}
                if saving or logging:
                    self._check_skipped()
                    self.faults.gather()
                if logging:
                    seconds, clock = time.perf_counter() - clock, time.perf_counter()
                    log.log(self._record(means, self.done - first, seconds))
                    first = self.done
                    averages.clear()
                paused = time.perf_counter()
                if evaluate and (last or self._due(train.eval_every)):
                    log.log({"step": self.done, **self._evaluate(evaluate, keep)})
                    ended = self.best.exhausted
                    last = last or ended
                    saving = saving and not last  # resumed from there, the run would continue
                if saving or last:
                    self._check_weights(TrainingError, f"by step {self.done}; lower optim.lr")
                if saving:
                    save(self.state())
                spent = time.perf_counter() - paused
                clock += spent  # the rate counts training time only
                log.pause(spent)
                if self.profiler is not None:
                    self.profiler.end_step()
                if ended:
                    break
                if stopping and not last:
                    raise KeyboardInterrupt

    def _step_or_stop(
        self,
        batch: Batch,
        stop: list[int],
        began: int,
        save: Callable[[TrainingState], None],
    ) -> dict[str, Tensor]:
        """Return a step's report; abandon the step if a signal kills its compiler.

        If a run is asked to stop while it compiles, a single rank saves what it has done since step
        `began`. Several ranks keep their last checkpoint: they would have to agree on a new one,
        and some of them wait within the step.

        Raises:
            KeyboardInterrupt: The step was abandoned.
            CompilationError: The compiler failed on its own.
        """
        try:
            return self.step(batch)
        except CompilationError:
            if not is_asked_to_stop(stop):
                raise
        self.statistics.put_back(torch.ones((), device=self.device))
        self.faults.take_back()
        if distributed.world_size() == 1 and self.done > began:
            self._check_skipped()
            self.faults.gather()
            self._check_weights(TrainingError, f"by step {self.done}; lower optim.lr")
            save(self.state())
        raise KeyboardInterrupt

    def _evaluate(
        self, evaluate: Callable[[], dict[str, float]], keep: Callable[[BestSoFar], None]
    ) -> dict[str, float]:
        with self.result():
            numbers = evaluate()
            if self.best.add(self.done, numbers):
                keep(self.best)
        models.set_mode(self.clip.model, self.trained)
        return numbers

    @contextmanager
    def result(self) -> Iterator[None]:
        """Give the model the run's resulting weights, in plain form, for the duration of the block.

        These are the average of the weights if there is one, and otherwise the last ones. The
        towers run uncompiled, even with `train.compile`.
        """
        average = self.average.in_place() if self.average is not None else nullcontext()
        eager = set_stance("force_eager") if self.config.train.compile else nullcontext()
        with average, self.plain(), eager:
            yield

    def plain(self, merge: bool = True) -> AbstractContextManager[None]:
        """Return a context in which the model has no adapters: they are merged, or dropped."""
        if self.adapters is None:
            return nullcontext()
        return self.adapters.taken_out(self.clip, merge)

    def _due(self, every: int) -> bool:
        return every > 0 and self.done % every == 0

    def _check_skipped(self) -> None:
        most, last = self.skipped.read()
        samples = dict(self._recent).get(last, [])
        self._recent.clear()
        allowed = self.config.train.max_skipped
        # A run whose steps were all skipped has trained nothing, however short it is.
        if most > min(allowed, self.steps - 1):
            raise SkippedTooOftenError(
                f"{most} steps in a row were skipped, the last of them step {last}{_of(samples)}, "
                "because their loss or gradients are not finite "
                f"(train.max_skipped={allowed}); lower optim.lr, use train.precision=fp32 to see "
                "whether the precision is at fault, or look for broken data with clic-data verify",
                last,
                samples,
            )

    def _check_weights(self, error: type[ClicError], when: str) -> None:
        """Raise `error` on all ranks if any rank has weights that are not finite."""
        state = self.clip.model.state_dict()
        # Attention masks contain -inf.
        floats = {n: v for n, v in state.items() if v.is_floating_point()}
        broken = torch.stack([(v.isnan() | v.isposinf()).any() for v in floats.values()])
        if distributed.all_reduce_sum(broken.sum()):
            names = [n for n, bad in zip(floats, broken.tolist(), strict=True) if bad]
            raise error(
                f"model.name={self.config.model.name}: weights are not finite "
                f"({', '.join(names[:3]) or 'on another rank'}) {when}"
            )

    def _record(self, means: dict[str, float], steps: int, seconds: float) -> dict[str, Any]:
        count = steps * self.config.train.batch_size * distributed.world_size()
        skipped = round(means[SKIPPED] * steps)
        record: dict[str, Any] = {
            "step": self.done,
            **means,
            SKIPPED: skipped,
            **self.faults.record(),
            "lr": self.rate,
            "logit_scale": self.clip.model.logit_scale.exp().item(),
            "images_per_second": count / seconds,
        }
        if self.device.type == "cuda":
            record["peak_memory_gb"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        return record

    def state(self) -> TrainingState:
        """Return what a checkpoint stores besides the weights."""
        return TrainingState(
            step=self.done,
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            batch_size=self.config.train.batch_size,
            world_size=distributed.world_size(),
            samples=self.samples,
            tally=asdict(self.faults.total),
            average={} if self.average is None else self.average.state(),
            best=self.best.state(),
            adapters={} if self.adapters is None else self.adapters.state(),
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
        groups = self.optimizer.param_groups
        kept = ("weight_decay", "betas", "eps", "lr_factor")
        settings = [{k: g[k] for k in kept} for g in groups]
        try:
            self.optimizer.load_state_dict(state.optimizer)
        except ValueError as error:
            raise ConfigError(
                f"the checkpoint was trained with another model.train than "
                f"{self.config.model.train} (or model.train_logit_scale); use the same, or "
                "start from its weights: model.name=CHECKPOINT train.resume=never"
            ) from error
        for group, own in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(own)  # the settings of this run, not the stored ones
        if state.scaler:  # empty if the run did not use fp16; the scale then starts afresh
            self.scaler.load_state_dict(state.scaler)
        self._check_weights(ModelError, f"in the checkpoint of step {state.step}; use another")
        if self.average is not None:
            self.average.restore(state.average)
        self.best.restore(state.best)
        self.faults.total = Tally(**state.tally)
        self.done = state.step


def _of(samples: list[tuple[str, ...]]) -> str:
    """Return a phrase that names the first few of a batch's samples by key."""
    keys = [key for row in samples for key in row]
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return f" (samples {', '.join(keys[:NAMED])}{more})" if keys else ""
