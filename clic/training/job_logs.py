"""The output of a job that a cluster runs, kept with the run that it trains."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

FOLDER = "logs"


def keep_job_logs(run: Path) -> None:
    """Link what submitit writes for this process into `RUN/logs`, if it has started the process.

    A hard link is the same file under a second name: it grows with the output, and stays when the
    folder of the multirun is removed. On another disk a symbolic link takes its place.
    """
    submitit = sys.modules.get("submitit")
    if submitit is None:
        return
    with suppress(RuntimeError):  # imported, but this process is no job of its
        paths = submitit.JobEnvironment().paths
        (run / FOLDER).mkdir(exist_ok=True)
        for path in (paths.stdout, paths.stderr):
            _link(Path(path), run / FOLDER / Path(path).name)


def _link(source: Path, target: Path) -> None:
    if target.exists() or not source.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        target.symlink_to(source.resolve())
