"""The training run: its folder, its loop and its records."""

from clic.training.run import train
from clic.training.trainer import Trainer, TrainingError

__all__ = ["Trainer", "TrainingError", "train"]
