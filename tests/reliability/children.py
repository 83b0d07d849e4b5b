"""Processes that are made to die: forked from a server that has imported torch already."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@cache
def _server() -> Any:
    """The server, with everything imported that a child needs; started once per test process."""
    # The server reads its path from the environment alone.
    known = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(known).rstrip(os.pathsep)
    context = multiprocessing.get_context("forkserver")
    ours = ["lowerbound.run", "lowerbound.cli", "tests.reliability.tiny", __name__]
    theirs = ["pytest", "torch", "torch._dynamo", "pydantic", "rich.progress", "tyro", "yaml"]
    context.set_forkserver_preload([*theirs, *ours])
    return context


class Child:
    """A call in a process of its own; its standard error goes into a file.

    Args:
        target: a function of a module.
        *args: its arguments. An int that it returns is the exit code.
        err: where standard error goes.
    """

    def __init__(self, target: Callable[..., Any], *args: Any, err: Path | None = None) -> None:
        self.err = err
        self.process = _server().Process(target=_inside, args=(err, target, args))
        self.process.start()

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens where the child is gone."""
        if self.process.is_alive():
            os.kill(self.process.pid, number)

    def wait(self, timeout: float = 60.0) -> int:
        """Its exit code, or minus the number of the signal that killed it."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"a child did not end in {timeout} s")
        return self.process.exitcode

    def said(self) -> str:
        """What it wrote to standard error."""
        assert self.err is not None
        return self.err.read_text()


def _inside(err: Path | None, target: Callable[..., Any], args: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    if err is not None:
        descriptor = os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 2)
        os.dup2(descriptor, 1)
    code = target(*args)
    sys.stderr.flush()
    sys.exit(code if isinstance(code, int) else 0)


def wait_for(path: Path, timeout: float = 30.0) -> None:
    """Wait until a file is there."""
    deadline = time.monotonic() + timeout
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.002)


def before_call(owner: Any, name: str, number: int, deed: Callable[[], None]) -> None:
    """Do something just before a function is called for the ``number``-th time, for good."""
    real, count = getattr(owner, name), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] == number:
            deed()
        return real(*args, **kwargs)

    setattr(owner, name, counted)
