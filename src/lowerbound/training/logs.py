"""What a run says: metrics.jsonl, a line per observation, and progress in the terminal."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from lowerbound.data import Source
from lowerbound.files import flush, not_written
from lowerbound.models import Model
from lowerbound.training.tracking import Trackers, few_pictures

__all__ = ["Console", "MetricsLog", "TrackedLog"]

TEN_DIGITS = 1e9


class MetricsLog:
    """Rows of numbers, kept in memory and, where there is a run folder, in metrics.jsonl.

    Args:
        folder: the run folder or None.
        keep_bytes: on resume, how much of the file belongs to the checkpoint; the rest is cut, so
            that no step is logged twice.
    """

    def __init__(self, folder: Path | None, keep_bytes: int = 0) -> None:
        self.rows: list[dict[str, Any]] = []
        self.step_before = -1  # of the last row that there ever was, also of one that is cut
        self.path = None if folder is None else folder / "metrics.jsonl"
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            written = self.path.read_bytes()
            self.step_before = _last_step(written)
            kept = written[:keep_bytes].splitlines(keepends=True)
            self.rows = _whole_rows(kept)
            os.truncate(self.path, sum(map(len, kept[: len(self.rows)])))

    def add(self, **row: Any) -> None:
        """Append a row; numbers that are not finite become null, which JSON can hold."""
        clean = {k: _finite(v) for k, v in row.items()}
        self.rows.append(clean)
        if self.path is not None:
            line = json.dumps(clean) + "\n"
            with _refusing(self.path, len(line)), open(self.path, "a", encoding="utf-8") as file:
                file.write(line)

    def flushed_bytes(self) -> int:
        """Length of metrics.jsonl, once it is on the disk: what a checkpoint may count on."""
        if self.path is None:
            return 0
        with _refusing(self.path, 0):
            flush(self.path)
        return os.path.getsize(self.path)


@contextlib.contextmanager
def _refusing(path: Path, needed: int) -> Iterator[None]:
    """Say of an error of the disk which file it was."""
    try:
        yield
    except OSError as error:
        size, remedy = f"{needed:,} bytes needed", "free some space, then use --resume"
        raise not_written("could not write", path, size, error, remedy) from error


def _whole_rows(lines: list[bytes]) -> list[dict[str, Any]]:
    """The rows up to the first line that is not one, as a power loss may leave it."""
    rows: list[dict[str, Any]] = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or not line.endswith(b"\n"):
            break
        rows.append(row)
    return rows


class TrackedLog(MetricsLog):
    """A `MetricsLog` whose rows, and a few pictures, trackers are told too.

    Args:
        folder: the run folder or None.
        keep_bytes: as for `MetricsLog`.
        trackers: who listens; they are closed by whoever made them.
    """

    def __init__(
        self, folder: Path | None, keep_bytes: int = 0, trackers: Trackers | None = None
    ) -> None:
        super().__init__(folder, keep_bytes)
        self.trackers = trackers or Trackers()
        self.trackers.open(self.rows, self.step_before)

    def add(self, **row: Any) -> None:
        """See `MetricsLog.add`."""
        super().add(**row)
        self.trackers.row(self.rows[-1])

    def show(self, model: Model, source: Source, step: int) -> None:
        """Draw a few pictures from the averaged model, where anybody listens."""
        self.trackers.pictures(step, lambda: few_pictures(model, source))


def _last_step(written: bytes) -> int:
    """Step of the last whole row of metrics.jsonl; −1 without one."""
    rows = _whole_rows(written.splitlines(keepends=True))
    return int(rows[-1]["step"]) if rows else -1


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return None
        return float(f"{value:.7g}")
    return value


class Console:
    """Progress on standard error: a bar in a terminal, a line per validation elsewhere.

    Args:
        quiet: say nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console as Rich

        self.rich = Rich(stderr=True, quiet=quiet, highlight=False)
        self.live = self.rich.is_terminal and not quiet
        self.bar: Any = None

    def __enter__(self) -> Console:
        if self.live:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("[bold]training"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=self.rich,
            )
            self.bar.start()
            self.task = self.bar.add_task("", total=1.0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def say(self, text: str) -> None:
        """One line for the person who waits; nothing where there is nothing to say."""
        if text:
            self.rich.print(text, soft_wrap=True, markup=False)

    def progress(self, share: float, row: dict[str, Any]) -> None:
        """Move the bar: images/s, bound in nats and bits/dim of the last interval."""
        if self.bar is not None:
            description = f"{row['images_per_second']:,.0f} examples/s · {shown(row)}"
            self.bar.update(self.task, completed=share, description=description)

    def validation(self, share: float, row: dict[str, Any]) -> None:
        """Say how a validation went."""
        star = " · best so far" if row["best"] else ""
        self.say(f"{share:4.0%} · step {row['step']:,} · validation {shown(row)}{star}")


def shown(row: dict[str, Any]) -> str:
    """A row's bound as a person reads it, or the loss of a model that has no bound."""
    if row["bound"] is None:
        loss = row.get("loss")
        return "bound not finite" if loss is None else f"loss {loss:.4g} (not a likelihood)"
    nats, bits = _short(row["bound"], 2), _short(row["bits_per_dim"], 4)
    return f"bound {nats} nats ({bits} bits/dim)"


def _short(value: float, decimals: int) -> str:
    """A number that a line has room for, however far training is off.

    >>> _short(-12.345, 2), _short(-1.5e9, 2)
    ('-12.35', '-1.500e+09')
    """
    return f"{value:.3e}" if abs(value) >= TEN_DIGITS else f"{value:.{decimals}f}"
