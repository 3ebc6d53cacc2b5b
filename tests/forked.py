"""Processes forked from a server that has imported torch once, which takes seconds each time.

They are real: they can be killed, stopped and sent signals. What they lack is an interpreter's end
(`atexit`, destructors), so that tests of that start Python itself.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# Each imports torch but starts no thread, so that the server may fork.
PRELOAD = ["clic.training", "clic.evaluation", "clic.cli.train", "hydra", "open_clip"]
CONTEXT = multiprocessing.get_context("forkserver")
HANG = 900
"""Seconds after which a process counts as hanging; nothing else is measured by them."""


class Forked:
    """A forked process, with the part of `subprocess.Popen` that tests use.

    Its standard output and errors go to one file. It leads a session of its own.

    Args:
        function: What it calls, of a module that can be imported by name.
        args: Its arguments.
        folder: Its working directory.
        env: What its environment has besides this process's own.
        log: File to which its output is appended; default one with a name of its own in `folder`.
    """

    def __init__(
        self,
        function: Callable[..., object],
        args: Sequence[Any],
        folder: Path,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self.log = log or folder / f"{secrets.token_hex(4)}.out"
        given = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        CONTEXT.set_forkserver_preload(PRELOAD)
        self._process = CONTEXT.Process(
            target=_begin, args=(function, tuple(args), folder, given, self.log)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    @property
    def output(self) -> str:
        return self.log.read_text() if self.log.is_file() else ""

    def poll(self) -> int | None:
        return self.returncode

    def communicate(self, timeout: float = HANG) -> tuple[str, None]:
        """Wait for the end; return all output. A process that hangs fails the test."""
        self._process.join(timeout)
        assert self.returncode is not None, f"nothing came of it in {timeout} s: {self.output}"
        return self.output, None

    def lines(self, timeout: float = HANG) -> Iterator[str]:
        """Yield the lines of the output as they come, until the process ends."""
        deadline, read = time.monotonic() + timeout, 0
        while time.monotonic() < deadline:
            ended = self.returncode is not None
            complete = self.output.rpartition("\n")[0].splitlines()
            yield from complete[read:]
            read = len(complete)
            if ended:
                return
            time.sleep(0.005)
        raise AssertionError(f"nothing came of it in {timeout} s: {self.output}")

    def signal_all(self, number: int) -> None:
        """Send a signal to the process and to all that it has started."""
        os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill the process, not those that it has started, and wait for its end."""
        self._process.kill()
        self._process.join(HANG)


def _begin(
    function: Callable[..., object],
    args: tuple[Any, ...],
    folder: Path,
    env: dict[str, str],
    log: Path,
) -> None:
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # or its workers come from the server
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
    function(*args)


def command(module: str, words: Sequence[str]) -> None:
    """Do what `python -m module words` does."""
    sys.argv = [module, *words]
    importlib.import_module(module).main()


def code(source: str, words: Sequence[str]) -> None:
    """Do what `python -c source words` does."""
    sys.argv = ["-c", *words]
    exec(compile(source, "<string>", "exec"), {"__name__": "__main__"})


def free_port() -> int:
    """Return a port at which nobody listens.

    It is not one of those that the system chooses itself, as it does for each connection of gloo:
    on a busy machine seconds pass until rank 0 listens, and another process might take it.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def torchrun(ranks: int) -> list[dict[str, str]]:
    """Return the environment of each rank, as torchrun sets it."""
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
    }
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def start_ranks(
    function: Callable[..., object], args: Sequence[Any], folder: Path, ranks: int
) -> list[Forked]:
    """Start a function on gloo ranks, as torchrun starts a command."""
    return [Forked(function, args, folder, env) for env in torchrun(ranks)]


def finish(processes: Sequence[Forked]) -> tuple[list[int | None], str]:
    """Wait for all processes; return their exit codes and all output, rank by rank."""
    try:
        outputs = [process.communicate()[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], "\n".join(outputs)


def run_script(script: Path, ranks: int, folder: Path) -> None:
    """Run a script's `main(folder)` on gloo ranks; one that fails ends the others."""
    rendezvous = folder / f"rendezvous-{secrets.token_hex(4)}"
    processes = [
        Forked(_script, (script, rendezvous, rank, ranks, folder), folder) for rank in range(ranks)
    ]
    deadline = time.monotonic() + HANG
    try:
        while any(process.returncode is None for process in processes):
            assert time.monotonic() < deadline, processes[0].output
            failed = [process for process in processes if process.returncode]
            assert not failed, failed[0].output
            time.sleep(0.02)
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * ranks, processes[0].output


def _script(script: Path, rendezvous: Path, rank: int, ranks: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=120),  # so that ranks that wait for each other fail soon
    )
    try:
        runpy.run_path(str(script))["main"](folder)
    finally:
        dist.destroy_process_group()
