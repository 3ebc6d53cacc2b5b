"""Joined captions: worked by hand."""

from __future__ import annotations

import pytest

from clic.captions.text import join


@pytest.mark.parametrize(
    ("sentences", "expected"),
    [
        (["a dog", "a cat"], "a dog. a cat."),
        (["a dog.", "a cat. "], "a dog. a cat."),
        (["a dog..", "a cat . "], "a dog. a cat."),
        ([" a dog\n", "\ta cat"], "a dog. a cat."),
        (["is it a dog?", "a cat!"], "is it a dog? a cat!"),
        (["is it a dog?.", "a cat"], "is it a dog? a cat."),
        (["", "a cat", " . "], "a cat."),
        (["dr. who and a no. 5 bus"], "dr. who and a no. 5 bus."),
        ([], ""),
    ],
)
def test_join(sentences: list[str], expected: str) -> None:
    assert join(sentences) == expected
