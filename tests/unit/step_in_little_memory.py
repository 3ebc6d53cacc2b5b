"""Train one step in less memory than it asks for, with what each error tells to set.

Run by test_training_passes.py in a process of its own, as memory that earlier tests have left free
would be taken first. Arguments are those of `clic-train`; prints the values tried and the report.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from pathlib import Path

from clic import models
from clic.cli.train import compose
from clic.data import make_builder, make_sources
from clic.training import Trainer
from clic.training.strategy import OutOfMemoryError

MORE = 150_000_000  # further bytes that a step may take


def main(words: list[str]) -> None:
    clip, usual = models.create(compose(words).model.name), resource.getrlimit(resource.RLIMIT_DATA)
    chosen: list[str] = []
    tried: list[int] = []
    for _ in range(5):
        config = compose([*words, *chosen])
        trainer = Trainer(config, clip, 6)
        models.set_mode(clip.model, trainer.trained)
        batch = make_builder(config, make_sources(config), clip).build(0)
        refuse_more_than(MORE)
        try:
            report = trainer.step(batch)
        except OutOfMemoryError as error:
            found = re.search(r"set (train\.micro_batch=(\d+)),", str(error))
            assert found is not None, error
            chosen, tried = [found[1]], [*tried, int(found[2])]
        else:
            break
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, usual)
    shown = {name: float(report[name]) for name in ("loss", "skipped_steps")}
    print(json.dumps({"tried": tried, **shown}))


def refuse_more_than(more: int) -> None:
    """Refuse the process more than some further bytes, as a full device does."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    held = next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmData"))
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (held + more, most))


if __name__ == "__main__":
    main(sys.argv[1:])
