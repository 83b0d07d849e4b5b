"""One process per device, watched: a process that dies ends the job, with its number and reason.

`lowerbound train --devices 2` runs the same command line once per device, told by the environment
which part it has, as torchrun would. This process only watches: it hands on Ctrl-C and SIGTERM,
and ends the others of a process that died, which would wait for it forever. Where this process is
killed itself, the kernel ends its children.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "PARTS",
    "end_with_parent",
    "heartbeat",
    "is_first",
    "is_launched",
    "is_watched",
    "watch",
]

PARTS = "LOWERBOUND_PARTS"  # names the folder where the processes of a job say how far they are
SECONDS_TO_END = 3.0  # for the others to end by themselves, once one has died
LOST = 4  # exit code of a process that lost another: never the first reason


def watch(args: Sequence[str], devices: int) -> int:
    """Run ``lowerbound ARGS`` once per device; give the job's exit code."""
    with tempfile.TemporaryDirectory(prefix="lowerbound-") as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        job = [_start(args, rank, devices, port, Path(folder)) for rank in range(devices)]

        def hand_on(number: int, frame: object) -> None:
            for part in job:
                part.send_signal(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, hand_on)
        died: dict[int, int] = {}
        deadline = float("inf")
        while len(died) < devices and time.monotonic() < deadline:
            for rank, part in enumerate(job):
                code = part.poll()
                if code is not None and rank not in died:
                    died[rank] = code
                    if code:
                        deadline = min(deadline, time.monotonic() + SECONDS_TO_END)
            time.sleep(0.05)
        for part in job:
            part.kill()
            part.wait()
        return _verdict(died, Path(folder))


def _start(
    args: Sequence[str], rank: int, devices: int, port: int, folder: Path
) -> subprocess.Popen[bytes]:
    """One part of the job, in a session of its own: a terminal's Ctrl-C reaches it through us."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": devices, "LOCAL_WORLD_SIZE": devices}
    where = {"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    where |= {"TORCHELASTIC_RUN_ID": "lowerbound", PARTS: str(folder)}
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // devices))}
    numbers = {name: str(value) for name, value in told.items()}
    environment = threads | os.environ | numbers | where
    command = [sys.executable, "-m", "lowerbound", *args]
    # The first part speaks; what another says is kept until it is the reason of an end.
    heard = None if rank == 0 else open(folder / f"{rank}.heard", "wb")
    return subprocess.Popen(
        command, env=environment, stdout=heard, stderr=heard, start_new_session=True
    )


def _verdict(died: dict[int, int], folder: Path) -> int:
    """The exit code of the process that died of itself, having said which and why."""
    reasons = [rank for rank, code in died.items() if code < 0]  # in the order of dying
    reasons += [rank for rank, code in died.items() if code > 0 and code != LOST]
    reasons += [rank for rank, code in died.items() if code]
    if not reasons:
        return 0
    rank, code = reasons[0], died[reasons[0]]
    if code < 0:
        beat = folder / f"{rank}.step"
        step = f" at step {beat.read_text()}" if beat.exists() else " before its first step"
        name = signal.Signals(-code).name
        print(
            f"lowerbound: error: process {rank} died ({name}){step}; the others were ended; "
            "the last checkpoint is good: continue with --resume",
            file=sys.stderr,
        )
        return LOST
    if rank and died.get(0) != code:  # else the first has said the same
        heard = (folder / f"{rank}.heard").read_text(errors="replace").strip().splitlines()
        print("\n".join(heard[-1:]), file=sys.stderr)
    return code


def is_launched() -> bool:
    """Whether this is one process of several that torchrun, SLURM or `watch` started."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def is_first() -> bool:
    """Whether this process speaks for the job: the only one, or the first of several."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def is_watched() -> bool:
    """Whether `watch` will say what happened to the other processes."""
    return PARTS in os.environ


def heartbeat(step: int) -> None:
    """Say how far this process is, where it is watched."""
    if folder := os.environ.get(PARTS):
        Path(folder, f"{os.environ['RANK']}.step").write_text(f"{step:,}")


def end_with_parent() -> None:
    """Ask the kernel to end this process with the one that watches it (Linux)."""
    if is_watched() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
