"""What the tests of the training loop share: a trainer with its batches and records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clic import models
from clic.config.train_settings import Config
from clic.data import make_builder, make_sources
from clic.training import Trainer
from clic.training.metrics_log import MetricsLog, read
from clic.types import Batch


class Setup:
    """A trainer with its batches and records."""

    def __init__(self, config: Config, folder: Path, steps: int = 6) -> None:
        self.clip = models.create(config.model.name)
        self.builder = make_builder(config, make_sources(config), self.clip)
        self.trainer = Trainer(config, self.clip, steps)
        self.saved: list[int] = []
        self.log_path = folder / "metrics.jsonl"

    def batches(self) -> Iterator[Batch]:
        for step in range(self.trainer.done, self.trainer.steps):
            yield self.builder.build(step)

    def fit(self, batches: Any = None, evaluate: Any = None) -> list[dict[str, Any]]:
        log = MetricsLog(self.log_path, 0, self.trainer.steps)
        models.set_mode(self.clip.model, self.trainer.trained)
        try:
            self.trainer.fit(
                batches or self.batches(), log, lambda s: self.saved.append(s.step), evaluate
            )
        finally:
            log.close()
        return read(self.log_path)

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.clip.model.state_dict().items()}


@pytest.fixture
def setup(settings: Callable[..., Config], tmp_path: Path) -> Callable[..., Setup]:
    return lambda *words, steps=6: Setup(settings(*words), tmp_path, steps)
