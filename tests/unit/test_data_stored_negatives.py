"""False captions that are stored with the samples: NegCLIP's file, packed, drawn and trained on."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clic import data, models, runs
from clic.captions import stored_negative
from clic.config.checks import validate
from clic.config.train_settings import CaptionsConfig, Config
from clic.data.batches.captioner import Captioner, check_captions
from clic.data.shards.records import negatives_of
from clic.errors import ConfigError, DataError
from clic.seeding import generator
from clic.training import Trainer, train
from clic.training.metrics_log import read
from clic.types import Batch, Sample

Clic = Callable[..., tuple[int, str, str]]
WORDS = (
    "+experiment=vitb32_negclip",
    "captions.single_negative=stored",
    "data=shards",
    "data.samples=null",
    "data.split=null",
    "model.train=both",
    "train.max_steps=3",
    "train.precision=fp32",
)
ROWS = [  # title, false captions; the third has none, one of the fourth's is its own title
    ("A dog on a red mat.", ["A mat on a red dog.", "A red on a dog mat."]),
    ("Two cats see a bird.", ["Two birds see a cat.", "Two see cats a bird."]),
    ("A cup.", []),
    ("A man and a boat.", ["a man and  a boat", "A boat and a man."]),
] * 3
IMAGE = np.zeros((4, 4, 3), dtype=np.uint8)


def write_table(root: Path, rows: list[tuple[str, list[str]]]) -> Path:
    """Write a table in the form of train_neg_clip.tsv, with its images."""
    (root / "coco").mkdir(parents=True)
    with open(root / "train_neg_clip.tsv", "w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["", "title", "filepath", "neg_caption", "neg_image"])
        for number, (title, false) in enumerate(rows):
            Image.new("RGB", (40, 32), (20 * number, 90, 40)).save(root / f"coco/{number}.jpg")
            table.writerow([number, title, f"coco/{number}.jpg", str(false), "[0]"])
    return root / "train_neg_clip.tsv"


@pytest.fixture
def shards(clic_data: Clic, tmp_path: Path) -> Path:
    """Return what `clic-data pack` makes of the table."""
    code, out, err = clic_data("pack", write_table(tmp_path / "in", ROWS), "negclip")
    assert code == 0, err
    assert "negclip" in out
    return tmp_path / "negclip"


def builder(config: Config) -> data.BatchBuilder:
    sources = data.make_sources(config)
    return data.make_builder(config, sources, models.create(config.model.name, "included"))


# --- from the file to the weights ----------------------------------------------------------------


def test_a_run_on_the_packed_file(shards: Path, settings: Callable[..., Config]) -> None:
    words = (*WORDS, f"data.shards={shards}")
    files, logs = [], []
    for name, further in (("a", []), ("b", ["data.workers=1"]), ("c", ["seed=1"])):
        path = train(settings(*words, *further, f"train.run_name={name}"))
        files.append((path / "model" / runs.OPEN_CLIP_WEIGHTS).read_bytes())
        logs.append(list(read(path / "metrics.jsonl")))
    assert files[0] == files[1] != files[2]
    without = [4 * record["single/no_negative"] for record in logs[0]]
    batches = builder(settings(*words))
    assert without == [batches.build(step).tally.no_negative for step in range(3)]
    assert sum(without) == 3  # an epoch has three cups


def test_a_run_that_was_killed_goes_on_to_the_same_weights(
    shards: Path, settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*WORDS, f"data.shards={shards}", "train.save_every=1")
    whole = train(settings(*words, "train.run_name=whole"))
    step = Trainer.step

    def dying(self: Trainer, batch: Batch) -> Any:
        if batch.step == 2:
            raise RuntimeError("killed")
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", dying)
        with pytest.raises(RuntimeError, match="killed"):
            train(settings(*words, "train.run_name=killed"))
    resumed = train(settings(*words, "train.run_name=killed"))
    first, second = (path / "model" / runs.OPEN_CLIP_WEIGHTS for path in (whole, resumed))
    assert first.read_bytes() == second.read_bytes()


def test_the_texts_are_those_of_the_file(shards: Path, settings: Callable[..., Config]) -> None:
    """Over some epochs each false caption of the file is drawn, and nothing else is."""
    made = builder(settings(*WORDS, f"data.shards={shards}"))
    assert made.captioner.negative_kinds["single"] == ("stored",)
    drawn: dict[str, Counter[str | None]] = {}
    for step in range(36):
        for _, captions in made.preview(step, 4):
            (negative,) = captions.negatives
            assert negative is None or (negative.kind, negative.edits) == ("stored", ())
            text = None if negative is None else negative.text
            drawn.setdefault(captions.positives[0], Counter())[text] += 1
    assert {true: set(texts) for true, texts in drawn.items()} == {
        "a dog on a red mat.": {"a mat on a red dog.", "a red on a dog mat."},
        "two cats see a bird.": {"two birds see a cat.", "two see cats a bird."},
        "a cup.": {None},
        "a man and a boat.": {"a boat and a man."},
    }
    again = builder(settings(*WORDS, f"data.shards={shards}"))
    first, second = (b.preview(7, 4) for b in (made, again))
    assert [captions for _, captions in first] == [captions for _, captions in second]


def test_the_batch_holds_their_tokens(shards: Path, settings: Callable[..., Config]) -> None:
    made = builder(settings(*WORDS, f"data.shards={shards}"))
    batch, shown = made.build(0), made.preview(0, 4)
    assert batch.negatives is not None and batch.negative_mask is not None
    assert batch.negative_kinds == ("stored",) and batch.negatives.shape[:2] == (4, 1)
    for row, (_, captions) in enumerate(shown):
        negative = captions.negatives[0]
        assert bool(batch.negative_mask[row, 0]) == (negative is not None)
        if negative is not None:
            expected, _ = made.tokens([negative.text])
            width = expected.shape[-1]
            assert batch.negatives[row, 0, :width].tolist() == expected[0].tolist()
    assert batch.tally.no_negative == 4 - int(batch.negative_mask.sum())
    assert batch.tally.retagged == 0


def test_no_tagger_is_made(
    shards: Path, settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"tagger {name}")

    monkeypatch.setattr("clic.data.batches.captioner.make_tagger", refuse)
    builder(settings(*WORDS, f"data.shards={shards}")).build(0)


def test_packing_samples_and_annotating_keep_them(clic_data: Clic, tmp_path: Path) -> None:
    data.pack([Sample("x", IMAGE, ("A dog",), negatives=("A god", "B"))], tmp_path / "mine")
    assert clic_data("annotate", "mine")[0] == 0
    shards = str(tmp_path / "mine")
    sample = data.ShardSource(shards, negatives=True).read(0)
    assert sample.negatives == ("A god", "B") and sample.tags
    assert data.ShardSource(shards).read(0).negatives == ()


# --- what is drawn -------------------------------------------------------------------------------


def test_each_is_as_likely_as_any_other() -> None:
    texts = ("one", "two", "three", "A dog!", "a  dog", "", ".")
    rng = generator(0, "t")
    drawn = Counter(
        made.text
        for _ in range(3000)
        if (made := stored_negative(texts, rng, ("A dog.", "x"))) is not None
    )
    assert set(drawn) == {"one", "two", "three", "A dog!"}
    assert all(abs(count - 750) < 100 for count in drawn.values())  # four standard deviations
    assert stored_negative(("a dog",), rng, ("A  dog.",)) is None
    assert stored_negative((), rng, ("A dog.",)) is None


def test_case_is_kept_where_that_is_asked() -> None:
    sample = Sample("x", IMAGE, ("A dog", "It runs"), negatives=("A Cat", "it runs."))
    for lowercase, text in ((True, "a cat"), (False, "A Cat")):
        maker = Captioner(CaptionsConfig(single_negative="stored", lowercase=lowercase))
        for seed in range(8):
            row = maker.make("single", [sample], generator(seed, "t"))
            assert row.negatives[0] is not None and row.negatives[0].text == text


# --- mistakes ------------------------------------------------------------------------------------


def test_samples_without_any_are_told_before_the_run(
    clic_data: Clic, tmp_path: Path, settings: Callable[..., Config]
) -> None:
    bare: list[tuple[str, list[str]]] = [(title, []) for title, _ in ROWS]
    assert clic_data("pack", write_table(tmp_path / "in", bare), "bare")[0] == 0
    config = settings(*WORDS, f"data.shards={tmp_path / 'bare'}")
    message = r"single_negative=stored.*clic-data pack.*single_negative=swap"
    with pytest.raises(ConfigError, match=message):
        train(config)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_the_world_has_none(settings: Callable[..., Config]) -> None:
    config = settings("+experiment=shapes_negclip", "captions.single_negative=stored")
    with pytest.raises(ConfigError, match=r"stored.*data=shapes.*single_negative=swap"):
        validate(config)


def test_a_mixture_does_not_take_them(settings: Callable[..., Config]) -> None:
    mixture = "captions.mixture={swap: 1, stored: 1}"
    config = settings("+experiment=shapes_negclip", "captions.single_negative=mixture", mixture)
    with pytest.raises(ConfigError, match=r"captions\.mixture\.stored is not known"):
        validate(config)


@pytest.mark.parametrize("value", ["A cat", 3, {"a": "b"}, [["A cat"]], ["A cat", None], [1]])
def test_what_is_no_list_of_texts_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match="`negatives` should be a list of texts"):
        negatives_of({"negatives": value})


def test_what_the_json_may_hold() -> None:
    assert negatives_of({}) == negatives_of({"negatives": None}) == ()
    assert negatives_of({"negatives": [" A cat ", "", "  "]}) == ("A cat",)


@pytest.mark.parametrize(
    ("text", "message"), [("half \ud83d", "half a character"), ("x" * 5000, "word of 5000")]
)
def test_what_is_no_caption_is_named(text: str, message: str) -> None:
    with pytest.raises(DataError, match=f"'x': a caption holds .*{message}|{message}"):
        check_captions(Sample("x", IMAGE, ("a dog",), negatives=("a cat", text)))


def test_a_broken_sample_is_replaced_only_where_they_are_used(
    tmp_path: Path, settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [
        Sample(str(i), IMAGE, (title,), negatives=tuple(false))
        for i, (title, false) in enumerate(ROWS)
    ]
    data.pack(samples, tmp_path / "mine")
    original = data.shards.shard_source.parse_record

    def parse(meta: bytes) -> dict[str, Any]:
        record = original(meta)
        return {**record, "negatives": 3} if record["caption"] == "A cup." else record

    monkeypatch.setattr("clic.data.shards.shard_source.parse_record", parse)
    words = (*WORDS, f"data.shards={tmp_path / 'mine'}", "data.max_broken=1")
    broken = [builder(settings(*words)).build(step).tally.broken for step in range(3)]
    assert sum(broken) >= 3  # the cups of an epoch, and a substitute that is one
    kept = [w for w in words if w != "captions.single_negative=stored"]
    assert sum(builder(settings(*kept)).build(step).tally.broken for step in range(3)) == 0
