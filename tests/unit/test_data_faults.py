"""Broken samples: who takes their place, what is counted, and when it is too much."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clic import distributed, models
from clic.config.train_settings import Config
from clic.data import BatchBuilder, SampleSource, make_builder, make_loader
from clic.data.batches.faults import FaultLog, first_usable, substitutes
from clic.data.batches.loader import _start_worker
from clic.errors import DataError
from clic.types import Batch, Fault, Sample, Tally

CPU = torch.device("cpu")
BROKEN = {3: b"no image", 9: b"\xff\xd8\xff\xe0 cut", 14: None, 20: OSError}


class Faulty(SampleSource):
    """Forty-eight tiny images, every third portrait; the samples of `BROKEN` cannot be used."""

    def __init__(self, broken: dict[int, Any] = BROKEN) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 48

    def sizes(self) -> np.ndarray:
        return np.array([(8, 12) if i % 3 == 0 else (12, 8) for i in range(48)], dtype=np.int32)

    def read(self, index: int) -> Sample:
        width, height = self.sizes()[index]
        buffer = io.BytesIO()
        Image.new("RGB", (width, height), (5 * index, 0, 0)).save(buffer, "PNG")
        captions = (f"a dog number {index}", "a cat")
        image = buffer.getvalue()
        if index in self.broken:
            fault = self.broken[index]
            if fault is OSError:
                raise OSError(5, "Input/output error", "/data/00000.tar")
            image, captions = fault or image, captions if fault else ()
        return Sample(f"key-{index}", image, captions)


@pytest.fixture
def builder(settings: Callable[..., Config], tiny: Path) -> Callable[..., BatchBuilder]:
    clip = models.create(str(tiny))

    def make(*words: str, source: SampleSource | None = None) -> BatchBuilder:
        config = settings("captions=clic", "sampling.square=landscape", *words)
        sources = dict.fromkeys(("composite", "single"), source or Faulty())
        return make_builder(config, sources, clip)  # type: ignore[arg-type]

    return make


def numbers(batch: Batch) -> list[list[int]]:
    return [[int(key.removeprefix("key-")) for key in keys] for keys in batch.keys]


# --- substitutes ---------------------------------------------------------------------------------


def test_substitutes_have_the_orientation_and_are_no_others_of_the_row() -> None:
    wide = np.arange(30) % 3 > 0
    drawn = list(islice(substitutes(wide, True, (1, 2), 0, 5, 7, 0), 200))
    assert set(drawn) == {i for i in range(30) if i % 3 and i not in (1, 2)}
    assert list(islice(substitutes(wide, True, (1, 2), 0, 5, 7, 0), 200)) == drawn
    for other in ((1, 5, 7, 0), (0, 6, 7, 0), (0, 5, 8, 0), (0, 5, 7, 1)):
        assert list(islice(substitutes(wide, True, (1, 2), *other), 200)) != drawn
    anyone = set(islice(substitutes(wide, None, (1,), 0, 5, 7, 0), 400))
    assert anyone == set(range(30)) - {1}


def test_two_broken_ones_of_a_row_get_two_substitutes(
    builder: Callable[..., BatchBuilder],
) -> None:
    class Few(Faulty):
        def __len__(self) -> int:
            return 5

        def sizes(self) -> np.ndarray:
            return np.full((5, 2), 8, dtype=np.int32)

    build = builder("sampling.kinds=composite", "data.max_broken=1", source=Few({0: None, 1: None}))
    seen = 0
    for step in range(40):
        batch = build.build(step)
        for keys in batch.keys:
            assert len(set(keys)) == 2
        seen += len(batch.faults)
    assert seen > 40


def test_the_last_of_an_orientation_stands_in_for_itself() -> None:
    wide = np.array([True, False, True])
    assert list(islice(substitutes(wide, False, (1,), 0, 0, 0, 0), 3)) == [1, 1, 1]


def test_the_first_whole_one_is_taken_and_the_faults_are_kept() -> None:
    def load(index: int) -> str:
        if index < 3:
            raise DataError(f"sample {index}:\n is broken")
        return f"sample {index}"

    found, faults = first_usable(load, 1, iter([2, 0, 7, 8]))
    assert found == "sample 7"
    assert faults == [Fault(i, f"sample {i}: is broken") for i in (1, 2, 0)]


def test_data_that_are_broken_as_a_whole_end_in_one_line() -> None:
    def load(index: int) -> None:
        raise DataError(f"sample {index}: broken")

    with pytest.raises(DataError, match=r"101 samples in a row are broken: number 0: sample 0: b"):
        first_usable(load, 0, iter(range(1, 1000)))


# --- batches -------------------------------------------------------------------------------------


def test_batches_hold_substitutes_of_the_same_orientation(
    builder: Callable[..., BatchBuilder],
) -> None:
    faulty, whole = builder(), builder(source=Faulty({}))
    replaced = 0
    for step in range(24):
        batch, plan = faulty.build(step), faulty.sampler.plan(step)
        assert plan == whole.sampler.plan(step)
        found = [fault.number for fault in batch.faults]
        for used, row in zip(numbers(batch), plan.rows, strict=True):
            assert not set(used) & set(BROKEN)
            for new, old in zip(used, row.indices, strict=True):
                assert (new == old) == (old not in BROKEN)
                if old in BROKEN:
                    replaced += 1
                    assert old in found
                    if batch.kind == "composite":
                        assert (new % 3 == 0) == (old % 3 == 0)
        assert batch.tally.broken == len(batch.faults)
        read = sum(len(row.indices) for row in plan.rows) + len(batch.faults)
        assert batch.tally.samples == read
    assert replaced >= 8


def test_a_substitute_leaves_the_other_rows_as_they_were(
    builder: Callable[..., BatchBuilder],
) -> None:
    faulty, whole = builder(), builder(source=Faulty({}))
    for step in range(8):
        first, second = faulty.build(step), whole.build(step)
        for row, (a, b) in enumerate(zip(first.keys, second.keys, strict=True)):
            if a == b:
                assert torch.equal(first.images[row], second.images[row])
                assert torch.equal(first.positives[row], second.positives[row])


@pytest.mark.parametrize("workers", [0, 2])
def test_counts_do_not_depend_on_the_workers(
    builder: Callable[..., BatchBuilder], workers: int
) -> None:
    expected = [builder().build(step) for step in range(5, 11)]
    found = list(make_loader(builder(), 5, 11, workers, pin_memory=False))
    for a, b in zip(expected, found, strict=True):
        assert (a.keys, a.tally, a.faults) == (b.keys, b.tally, b.faults)
        assert torch.equal(a.images, b.images)
    assert sum(batch.tally.broken for batch in found) > 0


def test_a_killed_worker_ends_in_one_line(builder: Callable[..., BatchBuilder]) -> None:
    class Deadly(Faulty):
        def read(self, index: int) -> Sample:
            if torch.utils.data.get_worker_info() is not None:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().read(index)

    with pytest.raises(DataError, match=r"a loader worker was killed .*data\.workers") as error:
        list(make_loader(builder(source=Deadly()), 0, 4, 2, pin_memory=False))
    assert "\n" not in str(error.value)


def test_a_request_to_stop_leaves_the_workers_to_the_training_process(
    builder: Callable[..., BatchBuilder],
) -> None:
    before = set(multiprocessing.active_children())
    batches = make_loader(builder(), 0, 12, 1, pin_memory=False)
    assert next(batches).step == 0
    (worker,) = set(multiprocessing.active_children()) - before
    for name in ("-TERM", "-INT"):  # as torchrun and Slurm send them, to the whole group
        subprocess.run(["kill", name, str(worker.pid)], check=True)
    assert [batch.step for batch in batches] == list(range(1, 12))
    worker.join(600)
    assert worker.exitcode == 0


def test_a_worker_ends_when_its_parent_says_so() -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def work() -> None:
        _start_worker(0)
        ready.set()
        time.sleep(3600)

    worker = context.Process(target=work, daemon=True)
    worker.start()
    assert ready.wait(600)
    worker.terminate()
    worker.join(600)
    assert worker.exitcode == 0


def test_every_fault_is_named(builder: Callable[..., BatchBuilder]) -> None:
    build = builder()
    faults = {f.number: f.reason for step in range(24) for f in build.build(step).faults}
    assert faults.keys() == BROKEN.keys()
    assert faults[3].startswith("sample 'key-3': 8 bytes starting with")
    assert faults[9].startswith("sample 'key-9': ")
    assert faults[14] == "sample 'key-14' has no caption; drop it from the data"
    assert faults[20] == "[Errno 5] Input/output error: '/data/00000.tar'"


def test_a_row_without_a_negative_keeps_its_place(builder: Callable[..., BatchBuilder]) -> None:
    class Same(Faulty):
        def read(self, index: int) -> Sample:
            sample = super().read(index)
            return Sample(sample.key, sample.image, ("a dog",))

    batch = builder(source=Same({})).build(0)
    assert batch.negative_mask is not None and not batch.negative_mask.any()
    assert batch.tally.no_negative == 4
    assert batch.tally.broken == 0 and batch.faults == ()


def test_captions_that_the_context_cuts_are_counted(builder: Callable[..., BatchBuilder]) -> None:
    class Long(Faulty):
        def read(self, index: int) -> Sample:
            sample = super().read(index)
            caption = "dog " * 40 if index % 2 else "cat"
            return Sample(sample.key, sample.image, (caption,))

    build = builder("captions=plain", "+experiment=shapes_clip", source=Long({}))
    batch = build.build(0)
    assert batch.tally.cut == sum(number % 2 for (number,) in numbers(batch))
    assert batch.tally.captions == 4


# --- the run's count -----------------------------------------------------------------------------


def batch_of(tally: Tally, faults: tuple[Fault, ...] = ()) -> Batch:
    image = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    tokens = torch.zeros(1, 1, 4, dtype=torch.long)
    return Batch(image, (0, 0, 0), (1, 1, 1), tokens, None, None, "single", 0, [], tally, faults)


def test_the_first_ten_faults_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    log = FaultLog(0.5, CPU)
    for step in range(4):
        faults = tuple(Fault(10 * step + i, f"sample 'k{10 * step + i}': cut") for i in range(4))
        log.add(batch_of(Tally(samples=100, broken=4), faults))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "WARNING: sample number 0 replaced: sample 'k0': cut"
    assert lines[-1] == "WARNING: sample number 21 replaced: sample 'k21': cut"
    log.gather()
    assert log.record()["data/broken"] == 16 and log.record()["data/samples"] == 400


def test_too_many_broken_ones_stop_the_run_but_not_before_a_thousand() -> None:
    log = FaultLog(0.01, CPU)
    log.add(batch_of(Tally(samples=999, broken=11), (Fault(7, "sample 'a': cut"),)))
    log.gather()
    log.add(batch_of(Tally(samples=101)))
    log.gather()  # exactly the share that is allowed
    log.add(batch_of(Tally(samples=1, broken=1), (Fault(8, "sample 'b': cut"),)))
    with pytest.raises(DataError) as error:
        log.gather()
    assert str(error.value) == (
        "12 of 1101 samples are broken, more than data.max_broken=0.01 allows; mend or drop them, "
        "or raise it: number 7: sample 'a': cut; number 8: sample 'b': cut"
    )


def test_what_was_counted_before_a_resume_counts() -> None:
    log = FaultLog(0.01, CPU)
    log.total = Tally(samples=990, broken=11)
    log.add(batch_of(Tally(samples=10)))
    with pytest.raises(DataError, match="11 of 1000 samples"):
        log.gather()


def test_large_shares_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    log = FaultLog(0.01, CPU)
    for _ in range(3):
        tally = Tally(samples=500, retagged=40, captions=800, cut=200, joined=400, shortened=40)
        log.add(batch_of(tally))
        log.gather()
    assert capsys.readouterr().err.splitlines() == [
        "WARNING: 25% of the captions are longer than the text tower's context and are cut (pack "
        "the data as sentences: clic-data pack --prepare-sentences)",
        "WARNING: 8% of the samples lack stored tags of their own",
        "WARNING: 10% of the captions of composites leave out images that do not fit the "
        "context (pack the data as sentences: clic-data pack --prepare-sentences)",
    ]
    assert log.record()["data/cut_captions"] == 0.25
    assert log.record()["data/shortened_captions"] == 0.1
    log = FaultLog(0.01, CPU)
    log.add(batch_of(Tally(samples=2000, retagged=100, captions=2000, cut=100)))
    log.gather()
    assert capsys.readouterr().err == ""


def with_negatives(none: int, foreign: int, kinds: tuple[str, ...] = ("swap",)) -> Batch:
    """Return a batch of twenty rows, some of them without a false caption."""
    mask = torch.arange(20)[:, None] >= none
    batch = batch_of(Tally(samples=20, captions=40, no_negative=none, foreign=foreign))
    return replace(batch, negative_mask=mask, negative_kinds=kinds)


@pytest.mark.parametrize(
    ("batch", "line"),
    [
        (
            batch_of(Tally(captions=16, cut=16)),
            "100% of the captions are longer than the text tower",
        ),
        (batch_of(Tally(captions=16, cut=16)), "clic-data pack --prepare-sentences"),
        (
            batch_of(Tally(joined=8, shortened=8)),
            "100% of the captions of composites leave out",
        ),
        (with_negatives(12, 0), "60% of the single rows have no false caption by swap (captions."),
        (replace(with_negatives(12, 0), kind="composite"), "by swap (see what clic-data"),
        (with_negatives(12, 0, ("replace",)), "captions.single_negative=mixture"),
        (
            with_negatives(12, 0, ("cross_swap", "layout")),
            "by cross_swap, layout (see what clic-data",
        ),
        (with_negatives(20, 19), "(most captions are not in Latin script, and clic's taggers"),
    ],
)
def test_what_makes_training_pointless_is_told_with_the_first_batch(
    batch: Batch, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = FaultLog(0.01, CPU)
    log.add(batch)
    told = capsys.readouterr().err
    assert told.startswith("WARNING: ") and line in told and told.count("\n") == 1
    for _ in range(100):
        log.add(batch)
        log.gather()
    assert capsys.readouterr().err == ""


def test_a_large_share_is_told_as_soon_as_it_is_sure(capsys: pytest.CaptureFixture[str]) -> None:
    log = FaultLog(0.01, CPU)
    log.add(with_negatives(6, 0))  # 30 % of twenty rows may be chance
    assert capsys.readouterr().err == ""
    for _ in range(20):
        log.add(with_negatives(6, 0))
    assert capsys.readouterr().err.startswith("WARNING: 30% of the single rows have no false")


@pytest.mark.parametrize("none", [0, 1, 4])
def test_shares_that_are_not_large_are_not_told(
    none: int, capsys: pytest.CaptureFixture[str]
) -> None:
    log = FaultLog(0.01, CPU)
    for _ in range(200):
        log.add(with_negatives(none, 0))
    assert capsys.readouterr().err == ""


def test_only_the_first_rank_tells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    FaultLog(0.01, CPU).add(with_negatives(20, 0))
    assert capsys.readouterr().err == ""
