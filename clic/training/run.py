"""A whole training run, from settings to the final model in its folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

import torch

from clic import data, distributed, models, provenance, runs
from clic.config.checks import validate
from clic.config.train_settings import Config
from clic.data import BatchBuilder, Sampler
from clic.errors import ConfigError
from clic.io.files import write_whole
from clic.io.processes import EMULATED
from clic.io.terminal import say
from clic.models import ClipModel
from clic.seeding import seed_torch
from clic.training import checkpoint, trained_parts
from clic.training.best import BestSoFar
from clic.training.compiling import check_compiler
from clic.training.metrics_log import ExampleSheets, MetricsLog
from clic.training.profiling import StepProfiler
from clic.training.run_folder import RunFolder, choose, claim, keep_job_logs, write_config
from clic.training.run_report import PROFILE, write_report
from clic.training.trackers import TrackedRun, start_trackers
from clic.training.trainer import SkippedTooOftenError, Trainer, TrainingError

Evaluate = Callable[[ClipModel], dict[str, float]]
COLLECTIVE_MINUTES = 10.0
EVALUATION_MINUTES = 180.0
DISTILLED_TOWARDS = "distilled_towards"
"""Entry of the provenance: the hash of the weights that self-distillation stays close to."""


def train(config: Config, evaluate: Evaluate | None = None) -> Path:
    """Train with the given settings; return the run's folder, whose `model/` is the result.

    `evaluate` is called with the model on rank 0 every `train.eval_every` steps.

    Raises:
        ClicError: A user's mistake; no incomplete files are left behind.
        KeyboardInterrupt: The run was stopped after writing a checkpoint.
    """
    validate(config)
    device = distributed.choose_device(config.train.device)
    # The other ranks wait while rank 0 evaluates, which must not look like a lost rank.
    patience = EVALUATION_MINUTES if config.train.eval_every else COLLECTIVE_MINUTES
    with distributed.process_group(device, patience):
        trained_parts.check_trainable(config, distributed.world_size())
        if config.train.compile:
            check_compiler(device)
        place = distributed.broadcast_object(choose(config) if distributed.is_main() else None)
        assert place is not None
        # Before a model is downloaded, so that mistakes in the data or the run's length come first.
        ranks = distributed.rank(), distributed.world_size()
        sources = data.make_sources(config)
        sampler = data.make_sampler(config, sources, *ranks)
        steps = count_steps(config, sampler)
        if distributed.is_main():
            say(f"data: {sampler.summary()}; loading the model {config.model.name}")
        clip = _load_model(config, device)
        builder = data.make_builder(config, sources, clip, *ranks, sampler)
        trainer = Trainer(config, clip, steps, sampler.total())
        if distributed.is_main():
            say(trained_parts.table(clip, trainer.factors, config.optim.lr))
            if trainer.strategy.emulates_bf16():
                say(f"WARNING: train.precision=bf16: {EMULATED}; use train.precision=fp32")
        with trainer.plain(merge=False):
            base = models.weights_sha256(clip.model) if config.train.distill_weight else None
        if place.checkpoint is not None:
            _check_base(config, place.checkpoint, base)
            _restore(config, place.checkpoint, trainer)
            told = builder.resume(trainer.faults.total)
            if told and distributed.is_main():
                say(told)
        lock = _open_folder(config, place, trainer, base) if distributed.is_main() else None
        try:
            _fit(config, place.path, trainer, builder, evaluate)
        finally:
            if lock is not None:
                lock.close()
        return distributed.broadcast_object(place.path)


def _check_base(config: Config, folder: Path, base: str | None) -> None:
    """Refuse to continue self-distillation towards weights other than those it began with.

    Raises:
        ConfigError: The hash `base` is not that of the run that wrote the checkpoint `folder`.
    """
    run = folder.parent.parent
    if base is None or not (run / runs.PROVENANCE_FILE).is_file():
        return
    then = runs.read_provenance(run).get(DISTILLED_TOWARDS, base)
    if then != base:
        raise ConfigError(
            f"train.distill_weight={config.train.distill_weight}: {run} kept its features near "
            f"weights with SHA-256 {then}, and model.name={config.model.name} now gives {base}; "
            "restore that model, or start anew with train.resume=never"
        )


def _restore(config: Config, folder: Path, trainer: Trainer) -> None:
    state, ranks = checkpoint.load(folder, trainer.clip, trainer.adapters), distributed.world_size()
    batch_size, allowed = config.train.batch_size, config.data.allow_reorder
    changed = checkpoint.check_same_batches(state, batch_size, ranks, trainer.samples, allowed)
    if changed and distributed.is_main():
        say(f"data.allow_reorder=true: {changed}, so batches differ from here on")
    trainer.restore(state)


def count_steps(config: Config, sampler: Sampler) -> int:
    """Return the run's length: `train.epochs` over the data, shortened to `train.max_steps`.

    Raises `ConfigError` if `train.max_steps` is more than the epochs have.
    """
    whole = config.train.epochs * sampler.steps_per_epoch()
    asked = config.train.max_steps
    if asked is not None and asked > whole:
        raise ConfigError(
            f"train.max_steps={asked} is more than the {whole} steps of "
            f"train.epochs={config.train.epochs}; raise train.epochs"
        )
    return asked or whole


def _load_model(config: Config, device: torch.device) -> ClipModel:
    """Return the base model; random weights are the same on every rank and after a restart."""
    name, pretrained = runs.source_of(config.model.name), config.model.pretrained
    if pretrained is None:
        if distributed.is_main():
            print(
                f"WARNING: model.pretrained=null: {name} starts from RANDOM weights; "
                "its results say nothing about a pretrained model",
                file=sys.stderr,
            )
        seed_torch(config.seed)
    clip = models.create(name, pretrained, device, config.model.quick_gelu)
    if config.model.context_length is not None:
        clip = models.stretch(clip, config.model.context_length)
    if config.model.image_size is not None:
        clip = models.resize_images(clip, config.model.image_size)
    return clip


def _open_folder(config: Config, place: RunFolder, trainer: Trainer, base: str | None) -> IO[str]:
    """Create the run's folder if it is new, and lock it; return the lock.

    `base` is the hash of the weights that self-distillation stays close to, if it is on.
    """
    lock = claim(place, config)
    keep_job_logs(place.path)
    if place.continued:
        say(f"resuming {place.path} from step {trainer.done}")
    else:
        size = config.train.batch_size * distributed.world_size()
        say(f"run {place.path}: {trainer.steps} steps of {size} images")
        if place.checkpoint is not None:
            say(f"resuming {place.checkpoint} from step {trainer.done}")
    if not place.continued or not (place.path / runs.PROVENANCE_FILE).is_file():
        state, started = trainer.state(), trainer.plain(merge=place.checkpoint is not None)
        with models.writing(place.path), started:
            write_config(place.path, config)  # first, because a folder with it can be resumed
            if place.checkpoint is not None:  # its own copy, to resume from
                checkpoint.save(place.path, trainer.clip, state, keep=0)
            elif config.model.starts_from_its_own():
                models.save(trainer.clip, place.path / runs.BASE)
            _write_provenance(config, place, trainer, base)  # last: marks the folder as complete
    return lock


def _write_provenance(config: Config, place: RunFolder, trainer: Trainer, base: str | None) -> None:
    clip, strategy = trainer.clip, trainer.strategy
    record = {
        "base": _base(config, place, clip),
        "experiment": config.name,
        "seed": config.seed,
        **provenance.code(),
        "command": provenance.command(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": str(clip.device),
        "precision": f"{strategy.dtype}".removeprefix("torch."),
        "tf32": strategy.tf32,
        "world_size": distributed.world_size(),
        "started_from": models.identity(clip),
    }
    if base is not None:
        record[DISTILLED_TOWARDS] = base
    write_whole(place.path / runs.PROVENANCE_FILE, json.dumps(record, indent=2) + "\n")


def _base(config: Config, place: RunFolder, clip: ClipModel) -> str:
    """Return the model that the run starts from, in a form that `clic.load` accepts."""
    if place.checkpoint is not None and not place.continued:
        return runs.base_of(place.checkpoint.parent.parent)
    if config.model.starts_from_its_own():
        return str((place.path / runs.BASE).resolve())
    return clip.source.reference


def _fit(
    config: Config, run: Path, trainer: Trainer, builder: BatchBuilder, evaluate: Evaluate | None
) -> None:
    start, stop = trainer.done, trainer.steps
    log = _open_log(config, run, trainer, builder)
    pin_memory = trainer.device.type == "cuda"
    loader = data.make_loader(builder, start, stop, config.data.workers, pin_memory, trainer.plan)

    def save(state: checkpoint.TrainingState) -> None:
        if distributed.is_main():
            with trainer.plain():
                checkpoint.save(run, trainer.clip, state, config.train.keep_checkpoints)

    def evaluate_now() -> dict[str, float]:
        assert evaluate is not None
        numbers = evaluate(trainer.clip) if distributed.is_main() else {}
        return distributed.broadcast_object(numbers)

    def keep(best: BestSoFar) -> None:
        if distributed.is_main():
            _save_best(trainer.clip, best, run / runs.BEST)

    asked = evaluate_now if config.train.eval_every else None
    try:
        trainer.fit(log.watch(loader), log, save, asked, keep)
    except KeyboardInterrupt:
        if distributed.is_main():
            say(f"stopped after step {trainer.done}; the same command continues {run}")
        raise
    except SkippedTooOftenError as error:
        raise TrainingError(f"{error}; {_write_skipped(error, run / runs.SKIPPED_FILE)}") from error
    finally:
        if trainer.profiler is not None:
            trainer.profiler.close()
        log.close()
    best = trainer.best
    if best.exhausted and distributed.is_main():
        say(
            f"ended after step {trainer.done}: {best.worse} evaluations (train.patience) brought "
            f"no better {best.metric} than {best.value} at step {best.step}, kept in "
            f"{run / runs.BEST}"
        )
    with trainer.result():
        if distributed.is_main():
            models.save(trainer.clip, run / runs.MODEL)
    if config.train.report and distributed.is_main():
        say(f"{write_report(run, config)} shows the run")
    distributed.barrier()


def _open_log(config: Config, run: Path, trainer: Trainer, builder: BatchBuilder) -> MetricsLog:
    """Return the log of a run, and set up its trackers, pictures and profile if turned on."""
    main, steps = distributed.is_main(), builder.sampler.steps_per_epoch()
    trackers = start_trackers(TrackedRun(config, run, trainer.done)) if main else []
    log = MetricsLog(run / runs.METRICS_FILE, trainer.done, trainer.steps, trackers, steps)
    if main:
        every, budget = config.train.examples_every, builder.token_budget()
        log.seen = ExampleSheets(run, every, budget, log.picture)
    if config.train.profile and main:
        trainer.profiler = StepProfiler(trainer.device, run / PROFILE.parent, say)
    return log


def _write_skipped(error: SkippedTooOftenError, path: Path) -> str:
    """Write every rank's samples of the last skipped step; return a phrase that says so."""
    ranks = distributed.gather_objects(error.samples)
    if distributed.is_main():
        record = {"step": error.step, "samples": [[list(row) for row in rows] for rows in ranks]}
        with models.writing(path):
            write_whole(path, json.dumps(record, indent=2) + "\n")
    return f"{path} holds the keys of all its samples, by rank and row"


def _save_best(clip: ClipModel, best: BestSoFar, folder: Path) -> None:
    """Replace the best model of a run, and the record of its score."""
    with models.whole_folder(folder, folder.parent) as new:
        models.write_files(clip, new)
        record = {"step": best.step, "metric": best.metric, "value": best.value}
        (new / runs.BEST_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
