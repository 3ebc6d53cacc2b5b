"""The page of a finished run."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from clic.config.train_settings import Config
from clic.training import train
from clic.training.run_report import Panel, changed, draw, last_scores, panels, results

RECORDS: list[dict[str, Any]] = [
    {"step": 2, "loss": 0.5, "composite/unimodal": 0.1, "composite/no_negative": 0.2, "lr": 1e-3,
     "images_per_second": 10.0, "data_wait": 0.1, "skipped_steps": 1, "data/broken": 0},
    {"step": 2, "s++@val/a/itt": 1.0, "s++@val/mean/itt": 2.0, "s++@val/mean/n": 9, "time": 1.0},
    {"step": 4, "loss": 0.25, "composite/unimodal": 0.3, "composite/no_negative": 0.1, "lr": 1e-4,
     "images_per_second": 30.0, "data_wait": 0.3, "skipped_steps": 0, "data/broken": 3},
    {"step": 4, "s++@val/a/itt": 3.0, "s++@val/mean/itt": 4.0, "s++@val/mean/n": 9, "time": 1.0},
]  # fmt: skip


def test_the_numbers_of_a_run(tmp_path: Path) -> None:
    assert results(tmp_path, RECORDS) == {
        "steps": "4",
        "last loss": "0.25",
        "images a second, mean": "20.0",
        "share of the time waiting for data, mean": "20.0%",
        "broken samples": "3",
        "skipped steps": "1",
    }
    assert results(tmp_path, []) == {}
    assert last_scores(RECORDS) == {"s++@val/a/itt": "3", "s++@val/mean/itt": "4"}


def test_what_is_drawn() -> None:
    assert panels(RECORDS) == [
        Panel("Loss", {"loss": "loss"}),
        Panel("Terms of composite batches", {"composite/unimodal": "unimodal"}),
        Panel("Rows without a false caption", {"composite/no_negative": "composite"}),
        Panel("Learning rate", {"lr": "lr"}),
        Panel("Images a second", {"images_per_second": "images/s"}),
        Panel("Share of the time waiting for data", {"data_wait": "waiting"}),
        Panel("s++@val", {"s++@val/mean/itt": "mean/itt"}),
    ]
    assert panels([]) == []


def test_a_drawing_is_a_picture_without_a_script() -> None:
    uri = draw(Panel("Loss", {"loss": "loss", "lr": "lr"}), RECORDS)
    data = base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,"))
    root = ElementTree.fromstring(data)
    assert root.tag.endswith("svg") and b"<script" not in data and b"loss" in data
    assert uri == draw(Panel("Loss", {"loss": "loss", "lr": "lr"}), RECORDS)


def test_a_category_with_dollars_is_no_formula() -> None:
    panel = Panel("own", {"loss": r"$5 and \x$/itt", "lr": "lr"})
    data = base64.b64decode(draw(panel, RECORDS).removeprefix("data:image/svg+xml;base64,"))
    assert rb"$5 and \x$/itt" in data


def test_settings_that_differ_and_no_secrets() -> None:
    config = Config()
    config.train.batch_size = 7
    config.data.shards = "https://u:s3cret@h.org/a.tar?sig=s3cret"
    assert changed(config) == {
        "data.shards": "https://h.org/a.tar?...", "train.batch_size": "7"
    }  # fmt: skip


def test_a_run_leaves_a_page_that_loads_nothing(
    settings: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(
        settings(
            "train.report=true", "train.max_steps=16", "train.profile=true", "train.log_every=4",
            "train.run_name=a<b",
        )
    )  # fmt: skip
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f"{run / 'report.html'} shows the run" in capsys.readouterr().out
    assert page.count('src="data:image/svg+xml') >= 6 and page.count('src="data:image/png') == 2
    addresses = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')\s>]+)', page)
    assert all(address.startswith("data:") for address in addresses), addresses[:3]
    assert "<script" not in page and "default-src &#39;none&#39;" in page
    assert "a&lt;b" in page and "a<b" not in page
    for words in ("last loss", "forward and loss", "train.max_steps", "started_from.name"):
        assert words in page, words
