"""What a run says: metrics.jsonl, a line per observation, and progress in the terminal."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from lowerbound.data import Source
from lowerbound.models import Model
from lowerbound.training.tracking import Trackers, few_pictures

__all__ = ["Console", "MetricsLog", "TrackedLog"]


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
            self.step_before = _last_step(self.path)
            with open(self.path, "rb+") as file:
                file.truncate(min(keep_bytes, os.path.getsize(self.path)))
            text = self.path.read_text(encoding="utf-8")
            self.rows = [json.loads(line) for line in text.splitlines()]

    def add(self, **row: Any) -> None:
        """Append a row; numbers that are not finite become null, which JSON can hold."""
        clean = {k: _finite(v) for k, v in row.items()}
        self.rows.append(clean)
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(clean) + "\n")

    @property
    def num_bytes(self) -> int:
        """Length of metrics.jsonl."""
        return 0 if self.path is None else os.path.getsize(self.path)


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


def _last_step(path: Path) -> int:
    """Step of the last whole row of metrics.jsonl; −1 without one."""
    for line in reversed(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):  # cut short by a crash
            continue
    return -1


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
        """One line for the person who waits."""
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
    return f"bound {row['bound']:.2f} nats ({row['bits_per_dim']:.4f} bits/dim)"
