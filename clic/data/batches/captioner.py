"""Makes a row's true and false captions from its samples' sentences, and their token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clic.captions.composite_negatives import cross_swap, layout_negative, word_swap
from clic.captions.composites import (
    Place,
    TokenBudget,
    composite_positives,
    layout_composite,
    remaining_phrases,
    sentence_composite,
)
from clic.captions.fluency import Fluency, Fluent
from clic.captions.negatives import single_negative, stored_negative
from clic.captions.paraphrases import nearest_caption, paraphrase
from clic.captions.tagging import Tagger, make_tagger
from clic.captions.text import end_sentence, has_words, lower
from clic.config.train_settings import OF_PARAPHRASE, CaptionsConfig
from clic.data.sampling.sample_sources import SampleSource
from clic.errors import ConfigError, DataError, UnavailableError
from clic.models.loading import Tokenizer
from clic.types import KINDS, HardNegative, Kind, RowCaptions, Sample, Token

FALLBACK = "hanta"
"""Tagger of captions that lack the stored tags they should have."""
LONGEST_WORD = 1000  # characters; byte-pair encoding takes quadratic time
LOOKED_AT = 16  # samples that are read before a source counts as having no tags or false captions
UNTAGGED = ("layout", "stored")  # false captions that are made without tags
MOST_WORDS = 200_000  # whose token ids are cached: above any vocabulary without misspellings
CAPTIONS_SHARE = 0.5  # of rows with `captions.paraphrase=captions` that use another caption
REWORDED_SHARE = 0.5  # of those that reword it too
_PROBES = (
    "a dog. two cats!",
    "The man's T-shirt (blue, size 40); it's near http://a.b/c?d=1 <end_of_text> ... ",
    "a long caption, " * 60,
    "",
)


def check_captions(sample: Sample) -> None:
    """Raise `DataError` if a sample lacks a first caption or has one that cannot be encoded.

    Samples of every source are checked here for valid Unicode.
    """
    if not sample.captions or not has_words(sample.captions[0]):
        raise DataError(f"sample {sample.key!r} has no caption; drop it from the data")
    texts = sample.captions + sample.negatives
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"sample {sample.key!r}: a caption holds half a character ({error.reason}); mend it"
        ) from error
    for caption in texts:
        longest = max(map(len, caption.split()), default=0) if len(caption) > LONGEST_WORD else 0
        if longest > LONGEST_WORD:
            raise DataError(
                f"sample {sample.key!r}: a caption holds a word of {longest} characters, more than "
                f"{LONGEST_WORD}; drop it from the data"
            )


def uses_tags(config: CaptionsConfig, kind: Kind) -> bool:
    """Return whether the false captions of a kind of row are made from part-of-speech tags."""
    reworded = kind == "single" and config.paraphrase != "none"
    return reworded or any(
        name.removesuffix(OF_PARAPHRASE) not in UNTAGGED for name in config.negative_kinds(kind)
    )


class Captioner:
    """Makes the captions of every row.

    Args:
        config: The settings group `captions`.
        budget: Limit on the length of composites' captions; None lets the tokenizer cut them.

    Attributes:
        negative_kinds: For each kind of row, the names of its K false captions.
    """

    def __init__(self, config: CaptionsConfig, budget: TokenBudget | None = None) -> None:
        self.config, self.budget = config, budget
        self.negative_kinds = {kind: config.negative_kinds(kind) for kind in KINDS}
        self._tagged_kinds = [kind for kind in KINDS if uses_tags(config, kind)]
        self._phrases = remaining_phrases(config.layout_held_out)
        self._tagger: Tagger | None = None
        self._fluent: Fluent | None = None

    def check(self, kind: Kind, source: SampleSource) -> None:
        """Raise `ConfigError` if the settings need tags or false captions that are missing."""
        if "stored" in self.negative_kinds[kind] and not _any(source, lambda s: bool(s.negatives)):
            raise ConfigError(
                "captions.single_negative=stored, and the first samples carry no false captions; "
                "pack them from a file that has some (clic-data pack train_neg_clip.tsv ...), or "
                "use captions.single_negative=swap"
            )
        self._choice()
        if kind not in self._tagged_kinds:
            return
        if self.config.tagger != "stored":
            make_tagger(self.config.tagger)
        elif not _any(source, lambda sample: sample.tags is not None):
            raise ConfigError(
                f"captions.tagger=stored, and the first samples carry no tags; use "
                f"captions.tagger={FALLBACK}, or store tags (clic-data annotate)"
            )

    def make(
        self,
        kind: Kind,
        samples: Sequence[Sample],
        rng: np.random.Generator,
        places: Sequence[Place] = (),
    ) -> RowCaptions:
        """Return the captions of one row.

        `samples` are its samples, the primary one first, and must have passed `check_captions`;
        `places` are the places of their images on a composite. `rng` draws sentences, orders and
        negatives.
        """
        captions = [self._cased(sample.captions) for sample in samples]
        if kind == "single":
            return self._single_row(samples[0], captions[0], rng)
        first = [sentences[0] for sentences in captions]
        tokens, retagged = self._tokens(samples, first) if kind in self._tagged_kinds else ([], 0)
        config, share = self.config, self.config.layout_share
        if share > 0 and rng.random() < share:  # a layout caption
            period = rng.random() < config.layout_period
            composite = layout_composite(captions, places, self._phrases, rng, period)
        else:
            composite = sentence_composite(captions, places)
        composite = composite.within(self.budget)
        positives = composite_positives(composite, config.composite_positives, rng, self.budget)
        true, negatives = positives.texts, list[HardNegative | None]()
        for name in self.negative_kinds[kind]:
            if name == "layout":
                negatives.append(layout_negative(composite, rng))
            elif name == "swap":  # within the primary image's caption
                own = captions[0]
                made = self._single(name, samples[0], own[0], own[1:], tokens[0], rng)
                # It ends as p1 does: a caption's ending must not reveal whether it is true.
                negatives.append(made and replace(made, text=end_sentence(made.text)))
            elif config.repair_negatives:
                negatives.append(word_swap(composite, tokens, rng, true))
            else:
                negatives.append(cross_swap(composite.captions, tokens, rng, repair=False))
        return RowCaptions(true, tuple(negatives), retagged, positives.shortened)

    def _single_row(
        self, sample: Sample, captions: Sequence[str], rng: np.random.Generator
    ) -> RowCaptions:
        """Return the captions of a single image: one of its own, any paraphrase, and negatives."""
        config, drawn = self.config, 0
        if config.single_caption == "random" and len(captions) > 1:
            drawn = int(rng.integers(len(captions)))
            if not has_words(captions[drawn]):
                drawn = 0  # the one that is known to be usable
        caption, rest = captions[drawn], [*captions[:drawn], *captions[drawn + 1 :]]
        tokens: tuple[Token, ...] = ()
        retagged = 0
        if "single" in self._tagged_kinds:
            (tokens,), retagged = self._tokens([sample], [caption], drawn)
        true: tuple[str, ...] = (caption,)
        if config.paraphrase != "none":
            true += (self._paraphrase(caption, tokens, rest, rng),)
        false: list[HardNegative | None] = []
        for name in self.negative_kinds["single"]:
            if name.endswith(OF_PARAPHRASE):
                name = name.removesuffix(OF_PARAPHRASE)
                own = self._tag(true[1]) if name != "stored" else ()
                false.append(self._single(name, sample, true[1], [caption, *rest], own, rng))
            else:
                false.append(self._single(name, sample, caption, [*true[1:], *rest], tokens, rng))
        return RowCaptions(true, tuple(false), retagged)

    def _paraphrase(
        self,
        caption: str,
        tokens: tuple[Token, ...],
        others: Sequence[str],
        rng: np.random.Generator,
    ) -> str:
        """Return the second true caption: the first one reworded, or another one of the image."""
        if self.config.paraphrase == "captions" and rng.random() < CAPTIONS_SHARE:
            near = nearest_caption(caption, others)
            if near is not None:
                reworded = rng.random() < REWORDED_SHARE
                return (paraphrase(near, self._tag(near), rng) if reworded else None) or near
        return paraphrase(caption, tokens, rng) or caption

    def _single(
        self,
        name: str,
        sample: Sample,
        caption: str,
        others: Sequence[str],
        tokens: tuple[Token, ...],
        rng: np.random.Generator,
    ) -> HardNegative | None:
        if name == "stored":
            return stored_negative(self._cased(sample.negatives), rng, [caption, *others])
        weights = self.config.mixture if name == "mixture" else {name: 1.0}
        return single_negative(caption, tokens, rng, weights, others, self._choice())

    def _choice(self) -> Fluent | None:
        """Return the model that chooses swaps; like the tagger, each process opens its own."""
        config = self.config
        if self._fluent is None and config.fluency is not None:
            model = Fluency.load(config.fluency, "captions.fluency")
            self._fluent = Fluent(model, config.fluency_candidates, config.fluency_least)
        return self._fluent

    def __getstate__(self) -> dict[str, Any]:
        """Leave the counts out: all workers map the same file."""
        return self.__dict__ | {"_fluent": None}

    def _cased(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(lower, texts)) if self.config.lowercase else texts

    def _tokens(
        self, samples: Sequence[Sample], captions: Sequence[str], number: int = 0
    ) -> tuple[list[tuple[Token, ...]], int]:
        """Return the tokens of each one's caption `number`, and how many lacked stored tags."""
        use_stored, found, retagged = self.config.tagger == "stored", [], 0
        for sample, caption in zip(samples, captions, strict=True):
            tokens = _stored(sample, caption, number) if use_stored else None
            if tokens is None:
                tokens = self._tag(caption)
                retagged += use_stored
            found.append(tokens)
        return found, retagged

    def _tag(self, caption: str) -> tuple[Token, ...]:
        if self._tagger is None:  # made by the process that uses it, so it need not be pickled
            stored = self.config.tagger == "stored"
            self._tagger = make_tagger(FALLBACK if stored else self.config.tagger)
        return self._tagger(caption)


def _any(source: SampleSource, has: Callable[[Sample], bool]) -> bool:
    """Return whether `has` is true for one of the first samples of any source of a mixture."""
    first = 0
    for part in source.parts():
        for index in range(first, first + min(LOOKED_AT, part.count)):
            try:
                if has(source.read(index)):
                    return True
            except UnavailableError:
                raise
            except (DataError, OSError):
                continue  # building the batch will replace and count it
        first += part.count
    return False


def _stored(sample: Sample, caption: str, number: int) -> tuple[Token, ...] | None:
    """Return the stored tokens of a caption, or None if there are none that fit it."""
    if not sample.tags or number >= len(sample.tags):
        return None
    # They were stored for the caption in its original case, which may since have been lowered.
    tokens = tuple(t._replace(text=caption[t.start : t.end]) for t in sample.tags[number])
    pairs = zip(tokens, sample.tags[number], strict=True)
    return tokens if all(new.text in (old.text, lower(old.text)) for new, old in pairs) else None


class CaptionTokenizer:
    """Returns exactly the token ids of the model's tokenizer, and how many captions it cuts.

    CLIP's byte-pair encoding never crosses a space, so the ids of "a. b." are those of its words
    in sequence. For printable ASCII without "&" (an HTML entity) the same is true of the cleaning
    before it, so the ids of such a text are joined from cached words. Any other text is encoded
    whole, as is every text if the tokenizer is of another kind, or if the joined ids of some probes
    differ from its own.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer: Any = tokenizer
        self._words: dict[str, tuple[int, ...]] = {}
        self.joins = self._can_join()

    def _can_join(self) -> bool:
        """Return whether the words' ids in sequence are those of the whole text."""
        from open_clip.tokenizer import SimpleTokenizer

        is_clip = isinstance(self.tokenizer, SimpleTokenizer)
        if not is_clip or self.tokenizer.reduction_fn is not None:
            return False
        return torch.equal(self._joined(_PROBES)[0], self.tokenizer(list(_PROBES)))

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """Return token ids, int64 [N, L], and how many of the N texts are longer than the context.

        Texts that are cut keep their end-of-text token.
        """
        if self.joins:
            return self._joined(texts)
        ids = self.tokenizer(list(texts))
        return ids, self._count_cut(texts, ids)

    def _joined(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        own, cut = self.tokenizer, 0
        length, start, end = own.context_length, own.sot_token_id, own.eot_token_id
        # Filled row by row, because torch.tensor inspects each number of a nested list.
        rows = np.zeros((len(texts), length), dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = [start, *self._ids(text), end]
            if len(ids) > length:
                ids[length - 1 :] = [end]
                cut += 1
            row[: len(ids)] = ids
        return torch.from_numpy(rows), cut

    def _ids(self, text: str) -> list[int]:
        if not text.isascii() or not text.isprintable() or "&" in text:
            return self.tokenizer.encode(text)
        ids: list[int] = []
        for word in text.split():
            known = self._words.get(word)
            if known is None:
                if len(self._words) >= MOST_WORDS:
                    self._words.clear()
                known = self._words[word] = tuple(self.tokenizer.encode(word))
            ids += known
        return ids

    def measures(self) -> bool:
        """Return whether the tokenizer can measure a caption, as all of open_clip's can."""
        return hasattr(self.tokenizer, "encode") or self._is_hugging_face()

    def budget(self) -> TokenBudget:
        """Return the limit on captions that the model reads to the end.

        Raises:
            ConfigError: The tokenizer cannot measure a caption.
        """
        if not self.measures():
            raise ConfigError(
                f"the tokenizer {type(self.tokenizer).__name__} does not tell how long a caption "
                "is; use compose.layout=pair, or a model whose tokenizer open_clip makes"
            )
        return TokenBudget(self.length, int(self.tokenizer.context_length))

    def length(self, text: str) -> int:
        """Return the number of a text's tokens, start and end included, before any cut."""
        if hasattr(self.tokenizer, "encode"):  # CLIP's own
            return len(self._ids(text) if self.joins else self.tokenizer.encode(text)) + 2
        # The "clips" mode adds three tokens itself.
        own = 3 if self.tokenizer.tokenizer_mode == "clips" else 0
        cleaned = self.tokenizer.clean_fn(text)
        return len(self.tokenizer.tokenizer(cleaned, add_special_tokens=not own).input_ids) + own

    def _is_hugging_face(self) -> bool:
        from open_clip.tokenizer import HFTokenizer

        return isinstance(self.tokenizer, HFTokenizer)

    def _count_cut(self, texts: Sequence[str], ids: Tensor) -> int:
        """Return how many texts open_clip's wrapper of a Hugging Face tokenizer has cut."""
        if not self._is_hugging_face():
            return 0  # cannot be known for other kinds of tokenizers
        # The last position may always hold an end or class token; the one before, only if full.
        full = (ids[:, -2] != self.tokenizer.tokenizer.pad_token_id).nonzero().flatten().tolist()
        return sum(self.length(texts[row]) > self.tokenizer.context_length for row in full)
