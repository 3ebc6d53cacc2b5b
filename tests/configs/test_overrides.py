"""Words of the command line as people write them: patterns, lists and mixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from clic.cli import train as command
from clic.config.checks import validate
from clic.config.overrides import for_hydra
from clic.config.train_settings import Config
from clic.errors import ConfigError

"""Each family's towers, shrunk; of their tokenizers only CLIP's own is at hand everywhere."""


def composed(*words: str) -> Config:
    """Return settings as the command composes them, with shards named where they must be."""
    config = command.compose(list(words))
    if config.data.source == "shards":
        config.data.shards = "/data/shards"
    return config


@pytest.mark.parametrize(
    ("word", "shards"),
    [
        ("s/{00..02}.tar", "s/{00..02}.tar"),
        ("{a,b}/{00..02}.tar", "{a,b}/{00..02}.tar"),
        ("'s/{00..02}.tar'", "s/{00..02}.tar"),
        ("it's/{0..2}.tar", "it's/{0..2}.tar"),
        ("[a/{0..2}.tar,b/1.tar,'c/{0,1}.tar']", ["a/{0..2}.tar", "b/1.tar", "c/{0,1}.tar"]),
        ("${name}/1.tar", "shapes/1.tar"),
        ("${name}/{0..2}.tar", "shapes/{0..2}.tar"),
        ("{a: 1}", {"a": 1}),
        ("/data/lr=1/x.tar", "/data/lr=1/x.tar"),
        ("/data/set (1)/{0..2}.tar", "/data/set (1)/{0..2}.tar"),
        ("/data/a#1", "/data/a#1"),
        ("/data/my set", "/data/my set"),
        ("/data/größe/日本", "/data/größe/日本"),
        ("~/data", "~/data"),
        ("s3://b/x.tar?sig=a%2Fb&c=d", "s3://b/x.tar?sig=a%2Fb&c=d"),
        ("a'b\\'c;d!e\\", "a'b\\'c;d!e\\"),
        ("[old]/x", "[old]/x"),
        ("[/a=1/x.tar, /b (2)/y.tar]", ["/a=1/x.tar", "/b (2)/y.tar"]),
        ("2024", "2024"),
        ("1e3", "1e3"),
        ("null", None),
    ],
)
def test_a_pattern_needs_no_quotes_of_hydras(word: str, shards: object) -> None:
    assert command.compose([f"data.shards={word}"]).data.shards == shards


def test_a_path_with_commas_that_exists_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "cats, dogs"
    folder.mkdir()
    for shards in (str(folder), f"{folder}/{{00..02}}.tar"):
        assert command.compose([f"data.shards={shards}"]).data.shards == shards
        assert for_hydra(f"data.shards={shards}") == f"data.shards='{shards}'"
    with pytest.raises(ConfigError, match=r"data\.shards has commas: \[A,B\] is a list"):
        command.compose(["data.shards=/nowhere/a,/nowhere/b"])


@pytest.mark.parametrize(
    ("word", "benches"),
    [
        ("shapes++", ["shapes++"]),
        ("shapes++,sugarcrepe@val", ["shapes++", "sugarcrepe@val"]),
        ("[shapes++,a=b]", ["shapes++", "a=b"]),
        ("my triplets (1).jsonl", ["my triplets (1).jsonl"]),
    ],
)
def test_benchmarks_need_no_brackets(word: str, benches: list[str]) -> None:
    config = command.compose([f"train.eval_bench={word}", "train.run_name=007"])
    assert config.train.eval_bench == benches
    assert config.train.run_name == "007"


def test_a_sweep_of_patterns_is_of_each() -> None:
    word = for_hydra("data.shards=a/{0,1}.tar,b/{0..2}.tar", sweep=True)
    assert word == "data.shards='a/{0,1}.tar','b/{0..2}.tar'"


@pytest.mark.parametrize(
    ("words", "mixture"),
    [
        (["captions=mixed", "captions.mixture.swap=0.1"], {"swap": 0.1, "replace": 0.5}),
        (["captions.mixture.swap=1", "captions.mixture.replace=3"], {"swap": 1, "replace": 3}),
        (["captions.mixture={swap: 1, replace: 3}"], {"swap": 1, "replace": 3}),
    ],
)
def test_a_mixture_is_weighed_by_name(words: list[str], mixture: dict[str, float]) -> None:
    choice = [] if "captions=mixed" in words else ["captions.single_negative=mixture"]
    config = composed("+experiment=vitb32_clove", *choice, *words)
    assert config.captions.mixture == mixture
    validate(config)


def test_a_misspelt_generator_of_a_mixture_is_told() -> None:
    config = composed("+experiment=vitb32_clove", "captions=mixed", "captions.mixture.swp=1")
    with pytest.raises(ConfigError, match=r"captions\.mixture\.swp is not known.*'swap'"):
        validate(config)
