"""`clic-data verify`: what is broken is found, what is there is counted."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clic.data import write_index
from clic.data.shards.index import index_path
from clic.data.tools.verifying import (
    Findings,
    check_shard,
    context_length,
    fraction_above,
    joined,
    make_measure,
    quantile,
)
from clic.errors import ModelError
from clic.io.processes import Ticker

Members = list[tuple[str, bytes]]


def jpeg(width: int = 20, height: int = 10) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 40)).save(buffer, "JPEG")
    return buffer.getvalue()


def sample(name: str, image: bytes | None = None, **record: Any) -> Members:
    entries = {
        "key": name,
        "captions": ["a dog", "a dog runs"],
        "width": 20,
        "height": 10,
        **record,
    }
    return [(f"{name}.jpg", image or jpeg()), (f"{name}.json", json.dumps(entries).encode())]


@pytest.fixture
def shard(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a tar, with its index unless told otherwise."""

    def make(*members: tuple[str, bytes], name: str = "0.tar", index: bool = True) -> Path:
        path = tmp_path / name
        with tarfile.open(path, "w") as file:
            for member, data in members:
                info = tarfile.TarInfo(member)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        if index:
            write_index(path)
        return path

    return make


def check(path: Path) -> Findings:
    return check_shard("ViT-B-32", path, Ticker(lambda count: None))


def test_a_sound_shard(shard: Callable[..., Path]) -> None:
    wide, tall = sample("a"), sample("b", jpeg(10, 20), width=10, height=20, captions=["a b c d"])
    path = shard(*wide, *tall)
    found = check(path)
    assert (found.broken, found.samples, found.captions, found.left_out) == (0, 2, 3, 0)
    assert found.sizes == {(20, 10): 1, (10, 20): 1}
    assert found.sentences == {2: 1, 1: 1}
    assert found.lengths == {4: 1, 5: 1, 6: 1}  # two words and start and end of text, ...
    assert found.first_lengths == {4: 1, 6: 1}
    assert (found.tar_bytes, found.image_bytes) == (
        path.stat().st_size,
        len(jpeg()) + len(jpeg(10, 20)),
    )


@pytest.mark.parametrize(
    ("members", "why"),
    [
        (sample("a", jpeg(64, 64)[:-10]), "cannot be decoded"),
        (sample("a", b"no image"), "not an image that PIL can read"),
        ([("a.jpg", jpeg()), ("a.json", b"{")], "JSON is not valid"),
        (sample("a", caption_hash="x"), "stored tags are those of other captions"),
    ],
)
def test_broken_samples(
    shard: Callable[..., Path], capsys: pytest.CaptureFixture[str], members: Members, why: str
) -> None:
    found = check(shard(*sample("good"), *members))
    assert (found.samples, found.broken, found.problems[0][0]) == (2, 1, "0.tar/a")
    assert why in found.problems[0][1]


def test_what_a_json_says_otherwise_is_only_counted(shard: Callable[..., Path]) -> None:
    """Other tools' JSON may hold the size before shrinking, or `tokens` of their own."""
    members = [*sample("a", key="b"), *sample("b", width=21), *sample("c", tokens=[1, 2])]
    found = check(shard(*members))
    assert (found.broken, found.samples, found.differing) == (0, 3, 2)


def test_what_is_no_sample_is_left_out(shard: Callable[..., Path]) -> None:
    found = check(shard(*sample("a"), ("b.txt", b"a dog"), ("c.jpg", jpeg()), *sample("a")[:1]))
    assert (found.samples, found.left_out, found.broken) == (1, 3, 0)


def test_bytes_that_changed_after_indexing(shard: Callable[..., Path]) -> None:
    path = shard(*sample("a"), *sample("b", captions=["a dog"]))
    path.write_bytes(path.read_bytes().replace(b"a dog runs", b"a cat runs"))
    ((where, why),) = check(path).problems
    assert where == "0.tar/a"
    assert why == "its bytes are not those that were indexed; fetch or pack the shard again"


def test_an_index_of_another_tar(shard: Callable[..., Path]) -> None:
    larger = sample("b", captions=["x" * 20_000])
    index = index_path(shard(*sample("a"), *larger, name="old.tar")).read_bytes()
    path = shard(*sample("a"), name="new.tar")
    index_path(path).write_bytes(index)
    assert "when it was indexed; run: clic-data index --force" in check(path).problems[0][1]
    index_path(path).write_bytes(b"nonsense")
    assert "index" in check(path).problems[0][1]
    index_path(path).unlink()
    found = check(path)
    assert (found.without_index, found.broken) == (1, 0)


def test_a_cut_tar_is_counted_up_to_its_end(shard: Callable[..., Path]) -> None:
    path = shard(*sample("a"), *sample("b"), index=False)
    with tarfile.open(path) as tar:
        end = tar.getmembers()[2].offset_data
    path.write_bytes(path.read_bytes()[: end + 10])
    found = check(path)
    assert (found.samples, found.broken) == (1, 1)
    assert found.problems[0][0] == "0.tar"


def test_keys_that_stand_twice(shard: Callable[..., Path]) -> None:
    found = check(shard(*sample("a"), *sample("b")))
    found.add(check(shard(*sample("b"), *sample("c"), name="1.tar")))
    assert (found.shards, found.samples, found.double_keys()) == (2, 4, 1)


# --- lengths -------------------------------------------------------------------------------------


def test_lengths_are_the_tokenizers_own() -> None:
    import open_clip

    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    measure = make_measure("ViT-B-32")
    for text in ("a dog", "", "Ein grüner Käfer!", "a man's T-shirt, 3.5 m"):
        assert measure(text) == int(tokenizer([text]).argmax()) + 1
    assert measure("word " * 200) == 202  # cut by nothing
    assert context_length("ViT-B-32") == 77


def test_an_unknown_model() -> None:
    with pytest.raises(ModelError, match="ViT-B-33"):
        make_measure("ViT-B-33")


def test_shares_and_quantiles() -> None:
    lengths = {4: 1, 6: 2, 40: 1}
    assert [fraction_above(lengths, c) for c in (3, 4, 6, 40)] == [1.0, 0.75, 0.25, 0.0]
    assert [quantile(lengths, q) for q in (0.25, 0.5, 0.75, 0.95)] == [4, 6, 6, 40]


def test_joined_lengths_by_hand() -> None:
    """Bare lengths 2 and 4, with shares 1/4 and 3/4: pairs of 4, 6 and 8, and start and end."""
    assert joined({4: 1, 6: 3}, 2) == {6: 1 / 16, 8: 6 / 16, 10: 9 / 16}
    assert joined({1: 1, 3: 1}, 1) == {1: 1 / 4, 3: 1 / 2, 5: 1 / 4}  # one end, no start: SigLIP
