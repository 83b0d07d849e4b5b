"""Ctrl-C and SIGTERM as a request: the loop saves and ends within a step."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Stop", "stop_signal"]


@dataclass
class Stop:
    """The signal that asked to stop; 0 while none has."""

    number: int = 0


@contextlib.contextmanager
def stop_signal(active: bool) -> Iterator[Stop]:
    """Turn the first Ctrl-C or SIGTERM into a request to save and stop; the second kills."""
    stop = Stop()
    if not active or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: Any) -> None:
        stop.number = number
        for n in before:
            signal.signal(n, signal.SIG_DFL)

    for n in before:
        signal.signal(n, request)
    try:
        yield stop
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
