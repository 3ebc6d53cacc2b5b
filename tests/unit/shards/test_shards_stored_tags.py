"""Stored annotation: what is written comes back, and only for the captions it was made of."""

from __future__ import annotations

import json
import warnings
from importlib.metadata import PackageNotFoundError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clic import shapes
from clic.captions import tagging
from clic.captions.tagging import make_tagger
from clic.captions.text import lower
from clic.data.shards import records
from clic.data.shards.records import annotate, stored_tokens, tag_record
from clic.errors import DataError

TAG = make_tagger("hanta")
CAPTIONS = ("Two Dogs sit.", "A man's cat isn't  here")


def through_json(captions: tuple[str, ...]) -> dict:
    return json.loads(json.dumps(annotate(captions, TAG)))


def test_what_is_stored_comes_back() -> None:
    stored = through_json(CAPTIONS)
    assert set(stored) == {"tokens", "tagger", "caption_hash"}
    assert stored["tagger"] == {"name": "hanta", "version": TAG.version}
    assert stored["tokens"][0] == [[0, 3, 1, 4, 1, 3, 0, 1], "MNV.", ["", "dog", "", ""]]
    assert stored_tokens(stored, CAPTIONS) == tuple(TAG(c) for c in CAPTIONS)


@pytest.mark.parametrize(
    ("tagger", "told"),
    [
        ({"name": "hanta", "version": TAG.version}, None),
        ({"name": "hanta", "version": "1.1+1"}, f"hanta 1.1+1, and here is hanta {TAG.version}"),
        ({"name": "given", "version": "1"}, None),
        ({"name": "spacy", "version": "en_core_web_sm 0.0.1"}, None),
        ("hanta", None),
    ],
)  # fmt: skip
def test_tags_of_another_version_are_told_once(
    tagger: object, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_no_model(name: str) -> str:
        if name == tagging.MODEL:
            raise PackageNotFoundError(name)
        raise AssertionError(name)

    monkeypatch.setattr(tagging, "version", of_no_model)
    records._check_version.cache_clear()
    stored = {**through_json(CAPTIONS), "tagger": tagger}
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(2):
            assert stored_tokens(stored, CAPTIONS) == tuple(TAG(c) for c in CAPTIONS)
    messages = [str(one.message) for one in seen]
    assert len(messages) == (told is not None)
    if told is not None:
        assert told in messages[0] and "run clic-data annotate" in messages[0]


def test_an_installed_pipeline_is_compared_without_loading_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tagging, "version", lambda name: "3.8.0")
    records._check_version.cache_clear()
    records._check_version("spacy", f"{tagging.MODEL} 3.8.0")
    with pytest.warns(
        UserWarning, match=r"en_core_web_sm 3\.7\.1, and here is spacy en_core_web_sm"
    ):
        records._check_version("spacy", f"{tagging.MODEL} 3.7.1")


def test_tokens_follow_the_case_of_the_captions() -> None:
    lowered = tuple(c.lower() for c in CAPTIONS)
    assert stored_tokens(through_json(CAPTIONS), lowered) == tuple(TAG(c) for c in lowered)


def test_tokens_of_other_captions_are_not_taken() -> None:
    stored = through_json(CAPTIONS)
    for captions in [CAPTIONS[:1], CAPTIONS[::-1], ("Two Dogs sat.", CAPTIONS[1]), ()]:
        assert stored_tokens(stored, captions) is None
    assert stored_tokens({}, CAPTIONS) is None
    assert stored_tokens({**stored, "caption_hash": 5}, CAPTIONS) is None
    # Another program's tokens have no hash of ours.
    assert stored_tokens({"tokens": stored["tokens"]}, CAPTIONS) is None


def test_a_lower_case_that_moves_characters_is_not_taken() -> None:
    stored = through_json(("İ dog",))
    assert stored_tokens(stored, ("İ dog",)) == (TAG("İ dog"),)
    assert stored_tokens(stored, ("İ dog".lower(),)) is None


@pytest.mark.parametrize(
    "tokens",
    [None, 5, [], [5], [[[0, 3], "N"]], [[[0, 3], "?", [""]]], [[[0], "N", [""]]],
     [[["0", 3], "N", [""]]], [[[0, 3], "N", ["", ""]]], [[[-2, 2], "N", [""]]],
     [[[3, 0], "N", [""]]], [[[1, 3], "N", [""]]], [[[0, 3], "N", [7]]]],
)  # fmt: skip
def test_broken_tokens_are_named(tokens: object) -> None:
    stored = {**through_json(("dog",)), "tokens": tokens}
    with pytest.raises(DataError, match=r"stored tokens are broken .* clic-data annotate --force"):
        stored_tokens(stored, ("dog",))


def test_broken_tokens_of_no_captions_are_told() -> None:
    stored = {**through_json(()), "tokens": 5}
    with pytest.raises(DataError, match="stored tokens are broken"):
        stored_tokens(stored, ())


def test_tags_that_are_known_already() -> None:
    sample = shapes.sample("train", 3, objects=2)
    assert sample.tags is not None
    stored = json.loads(json.dumps(tag_record(sample.captions, sample.tags, "shapes", "1")))
    assert stored_tokens(stored, sample.captions) == sample.tags


@given(st.lists(st.text(max_size=40), max_size=3))
def test_any_captions(captions: list[str]) -> None:
    stored = json.loads(json.dumps(annotate(captions, TAG)))
    assert stored_tokens(stored, captions) == tuple(TAG(c) for c in captions)
    assert stored_tokens(stored, list(map(lower, captions))) == tuple(
        TAG(lower(c)) for c in captions
    )
