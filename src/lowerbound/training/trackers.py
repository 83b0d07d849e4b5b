"""The trackers there are: dashboards that may be told what metrics.jsonl gets.

    tensorboard   event files in RUN/tensorboard
    trackio       its own local folder, or wherever TRACKIO_DIR or TRACKIO_SPACE_ID say
    wandb         as the person has set it up; WANDB_MODE=offline keeps it in RUN/wandb

Each is told the same four things: the configuration, scalars at a step, pictures at a step, and
that the run is over. Every library is imported by its own class alone, when it is asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lowerbound.config import nearest
from lowerbound.errors import refuse

__all__ = ["LOGGERS", "Pixels", "Tracked", "Tracker", "require"]

Pixels = NDArray[np.uint8]
PROJECT = "lowerbound"
EXTRA = "pip install 'lowerbound[track]'"


@dataclass(frozen=True)
class Tracked:
    """The run, as a tracker needs to know it.

    Args:
        folder: the run folder.
        id: the name under which the tracker has the run, the same after a resume.
        config: hyperparameters by flat name, each a number, a truth value or a text.
        keep: on resume the last step that stays; later ones are told again. None for a new run.
    """

    folder: Path
    id: str
    config: Mapping[str, Any]
    keep: int | None = None


class Tracker(ABC):
    """The promise of a tracker; whatever it raises ends the tracker and not the run."""

    module: ClassVar[str]
    install: ClassVar[str]
    hides_repeats: ClassVar[bool] = False
    """Whether it forgets the steps after ``keep`` by itself."""

    @classmethod
    def load(cls) -> Any:
        """The library, which is imported here alone.

        Raises:
            InputError: it is not installed.
        """
        try:
            return importlib.import_module(cls.module)
        except ImportError as error:
            name = cls.module.rpartition(".")[2]
            required = "the name of a package that is installed here"
            raise refuse("logger", required, name, f"run `{cls.install}`") from error

    @abstractmethod
    def __init__(self, run: Tracked) -> None: ...

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name at a step."""

    @abstractmethod
    def picture(self, step: int, name: str, pixels: Pixels) -> None:
        """A picture (H, W, 3) of bytes at a step."""

    @abstractmethod
    def close(self) -> None:
        """The run is over, or interrupted: nothing more will be told."""


class TensorBoard(Tracker):
    """Event files in RUN/tensorboard; ``tensorboard --logdir runs`` shows every run."""

    module = "torch.utils.tensorboard"
    install = EXTRA
    hides_repeats = True

    def __init__(self, run: Tracked) -> None:
        purge = None if run.keep is None else run.keep + 1
        self.writer = self.load().SummaryWriter(str(run.folder / "tensorboard"), purge_step=purge)
        hparams = importlib.import_module("torch.utils.tensorboard.summary").hparams
        # Not add_hparams: its second event file hides the growing first one from the dashboard.
        for summary in hparams(dict(run.config), {"validation/bound": 0.0}):
            self.writer.file_writer.add_summary(summary)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.scalars`; flushed, since a killed run should have said what it knew."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def picture(self, step: int, name: str, pixels: Pixels) -> None:
        """See `Tracker.picture`."""
        self.writer.add_image(name, pixels, step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """See `Tracker.close`."""
        self.writer.close()


class Trackio(Tracker):
    """A local run of trackio; ``trackio show --project lowerbound`` shows it."""

    module = "trackio"
    install = EXTRA

    def __init__(self, run: Tracked) -> None:
        self.library = self.load()
        with _silence():
            self.run = self.library.init(
                project=PROJECT,
                name=run.id,
                config=dict(run.config),
                resume="never" if run.keep is None else "allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.scalars`."""
        self.run.log(dict(values), step=step)

    def picture(self, step: int, name: str, pixels: Pixels) -> None:
        """See `Tracker.picture`."""
        self.run.log({name: self.library.Image(pixels)}, step=step)

    def close(self) -> None:
        """See `Tracker.close`."""
        with _silence():  # not run.finish, after which the library closes it again at exit
            self.library.finish()


class WandB(Tracker):
    """A run of Weights & Biases, in the mode and the project that the person has chosen."""

    module = "wandb"
    install = "pip install wandb"

    def __init__(self, run: Tracked) -> None:
        self.library = self.load()
        self.run = self.library.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run.id,
            name=run.folder.name,
            dir=str(run.folder),
            config=dict(run.config),
            resume="allow",
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.scalars`."""
        self.run.log(dict(values), step=step)

    def picture(self, step: int, name: str, pixels: Pixels) -> None:
        """See `Tracker.picture`."""
        self.run.log({name: self.library.Image(pixels)}, step=step)

    def close(self) -> None:
        """See `Tracker.close`."""
        self.run.finish()


LOGGERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WandB,
}


def require(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed, before anything is written.

    Raises:
        InputError: which one, and the command that brings it.
    """
    for name in names:
        if name not in LOGGERS:
            raise refuse("logger", f"one of {', '.join(LOGGERS)}", name, nearest(name, LOGGERS))
        LOGGERS[name].load()


def _silence() -> contextlib.AbstractContextManager[Any]:
    """Keep a chatty library off standard output, which belongs to the answer."""
    return contextlib.redirect_stdout(io.StringIO())
