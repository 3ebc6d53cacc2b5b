"""Training: settings in, a run's folder with its checkpoints, metrics and final model out.

Read `run` (one run from start to end), `trainer` (the step and the loop), `passes` (forward and
backward), `strategy` (device, precision, ranks; with `compiling`) and `optim`, which `assembly`
makes from the settings; then `run_folder` (new or resumed), `checkpoint`, `metrics_log`,
`trained_parts` (what the losses of a run reach), `frozen_base`, `best` and `profiling`.
"""

from clic.training.run import train
from clic.training.trainer import Trainer, TrainingError

__all__ = ["Trainer", "TrainingError", "train"]
