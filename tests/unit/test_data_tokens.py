"""Token ids put together from kept words are those of the tokenizer, to the last one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from clic.data.batches import captioner
from clic.data.batches.captioner import CaptionTokenizer
from clic.errors import ConfigError

CLIP = SimpleTokenizer(context_length=20)
KEPT = CaptionTokenizer(CLIP)
SENTENCES = ["a dog.", "Two cats, asleep on the man's T-shirt!", "it's 3:45 pm (nearly).", "<|x|>."]


def test_clips_tokenizer_joins() -> None:
    assert KEPT.joins


@pytest.mark.parametrize("first", SENTENCES)
@pytest.mark.parametrize("second", SENTENCES)
def test_the_ids_of_two_sentences_are_those_of_each_in_a_row(first: str, second: str) -> None:
    joined = f"{first} {second}"
    assert CLIP.encode(joined) == CLIP.encode(first) + CLIP.encode(second)
    ids, _ = KEPT([joined, second])
    assert torch.equal(ids, CLIP([joined, second]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(
            st.text(st.characters(codec="ascii"), max_size=60),
            st.text(max_size=20),
            st.sampled_from([*SENTENCES, "x " * 30, "&amp; &lt;", "ﬁ “quoted”", "a\tb\nc\x00d"]),
        ),
        max_size=4,
    ),
    st.sampled_from([8, 20, 77]),
)
def test_any_text(texts: list[str], length: int) -> None:
    CLIP.context_length, before = length, CLIP.context_length
    try:
        ids, cut = KEPT(texts)
        assert torch.equal(ids, CLIP(texts)) and ids.shape == (len(texts), length)
        assert cut == sum(len(CLIP.encode(text)) > length - 2 for text in texts)
    finally:
        CLIP.context_length = before


def test_what_is_cut_keeps_its_end() -> None:
    texts = ["dog " * count for count in (17, 18, 19)]
    ids, cut = KEPT(texts)
    assert cut == 1
    assert ids[:, -1].tolist() == [0, CLIP.eot_token_id, CLIP.eot_token_id]
    assert torch.equal(ids, CLIP(texts))


def test_words_are_kept_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioner, "MOST_WORDS", 3)
    kept = CaptionTokenizer(CLIP)
    for text in ("a b c", "d e", "a b c d e f g"):
        assert torch.equal(kept([text])[0], CLIP([text]))
        assert len(kept._words) <= 3


@pytest.mark.parametrize("clean", ["whitespace", "canonicalize"])
def test_other_cleaning(clean: str) -> None:
    tokenizer = SimpleTokenizer(context_length=20, clean=clean)
    kept = CaptionTokenizer(tokenizer)
    texts = ["A_b c--d. E f!", "_ . !", "The  Man's"]
    assert kept.joins and torch.equal(kept(texts)[0], tokenizer(texts))


class Other:
    """A tokenizer that counts the words and tells nothing of itself."""

    context_length = 4

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[len(text.split())] * 4 for text in texts])


@pytest.mark.parametrize(
    "tokenizer",
    [Other(), SimpleTokenizer(context_length=20, reduction_mask="simple")],
    ids=["unknown", "drops tokens by chance"],
)
def test_other_tokenizers_get_the_whole_text(tokenizer: Any) -> None:
    kept = CaptionTokenizer(tokenizer)
    assert not kept.joins
    ids, cut = kept(["a b", "c"])
    assert torch.equal(ids, tokenizer(["a b", "c"])) and cut == 0


def test_one_that_is_almost_clips_is_found_out() -> None:
    class Numbered(SimpleTokenizer):
        def encode(self, text: str) -> list[int]:
            return [*super().encode(text), len(text)]

    kept = CaptionTokenizer(Numbered(context_length=20))
    assert not kept.joins
    assert torch.equal(kept(["a b"])[0], kept.tokenizer(["a b"]))


@pytest.mark.parametrize("mode", [None, "clips"])
def test_hugging_face_tokenizers(tmp_path: Path, mode: str | None) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    from open_clip.tokenizer import HFTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]", "[EOS]"]
    (tmp_path / "vocab.txt").write_text("\n".join([*special, "a", "dog", "cat", "."]))
    inner = transformers.BertTokenizerFast(
        str(tmp_path / "vocab.txt"), bos_token="[BOS]", eos_token="[EOS]"
    )
    inner.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())
    tokenizer = HFTokenizer(
        str(tmp_path), context_length=8, strip_sep_token=mode is None, tokenizer_mode=mode
    )
    kept = CaptionTokenizer(tokenizer)
    texts = ["dog " * count for count in range(9)]
    ids, cut = kept(texts)
    assert not kept.joins and torch.equal(ids, tokenizer(texts))
    own = 2 if mode is None else 3
    assert cut == sum(count + own > 8 for count in range(9))
    assert [kept.length(text) for text in texts] == [count + own for count in range(9)]


def test_lengths_are_those_of_the_whole_text() -> None:
    for text in ("", "a dog.", "caf\xe9 &amp; bar", "dog " * 200):
        assert KEPT.length(text) == len(KEPT.tokenizer.encode(text)) + 2
    with pytest.raises(ConfigError, match=r"Other does not tell.*compose\.layout=pair"):
        CaptionTokenizer(Other()).budget()
