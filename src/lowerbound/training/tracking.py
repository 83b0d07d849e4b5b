"""What a run tells its trackers, and what happens when one of them fails.

metrics.jsonl stays the record. A tracker that raises is dropped with one warning, and the run goes
on. In a run of several processes only the first one has any.

trackers.json in the run folder holds the id under which each tracker knows the run, so that a
resumed run continues it. The steps after the checkpoint are told a second time: TensorBoard hides
what it had of them, and the others, which cannot, are spared what they were told already.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lowerbound.data import Source
from lowerbound.errors import printable, refuse
from lowerbound.evaluation.base import context_of, judging
from lowerbound.files import FORMAT_VERSION, check_format_version, load_json, save_json
from lowerbound.generation import contexts_for, draw, reconstruct
from lowerbound.models import Model
from lowerbound.plots.images import image_grid, is_image, shared_grey
from lowerbound.training.trackers import LOGGERS, Pixels, Tracked, Tracker, require

__all__ = ["MADE_BY_TRACKERS", "Trackers", "few_pictures", "flat"]

STATE = "trackers.json"
MADE_BY_TRACKERS = (STATE, "tensorboard", "wandb")
"""What they leave in a run folder; a run that is overwritten keeps none of it."""
NUM_SAMPLES, NUM_RECONSTRUCTED = 16, 8
GREY_ROWS = 1000  # training examples that decide what black and white are


class Trackers:
    """The trackers of one run, opened at the first word; a context that closes them.

    Args:
        names: of `LOGGERS`; each at most once is used.
        folder: the run folder; needed where there are names.
        config: hyperparameters, nested as they are in config.yaml.
        say: tells the person a warning.

    Raises:
        InputError: an unknown tracker, one that is not installed, or no folder.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        folder: Path | None = None,
        config: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        require(names)
        if names and folder is None:
            raise refuse("out", "given where there is a logger", "none", "name a run folder")
        self.names, self.folder = tuple(dict.fromkeys(names)), folder
        self.config, self.say = flat(config or {}), say
        self.live: dict[str, Tracker] = {}
        self.told: dict[str, int] = {}  # up to which step a tracker is told nothing more
        self.opened, self.drawing = False, True

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, rows: Sequence[Mapping[str, Any]] = (), told: int = -1) -> None:
        """Begin, or continue after ``rows``; a tracker that is new to the run is told them all.

        Args:
            rows: of metrics.jsonl that belong to the checkpoint; none for a new run.
            told: last step that was told before the interruption, at least that of the last row.
        """
        if self.opened or self.folder is None:
            return
        self.opened = True
        path = self.folder / STATE
        known = _known(path)
        last = int(rows[-1]["step"]) if rows else -1
        for name in self.names:
            run_id = known.get(name) or _new_id(self.folder)
            keep = last if name in known else None
            run = Tracked(self.folder, run_id, self.config, keep)
            self._try(name, partial(self._begin, name, run))
            if keep is not None:  # it has the rows, and maybe some that were cut
                self.told[name] = last if LOGGERS[name].hides_repeats else told
            elif name in self.live:
                self.told[name], known[name] = -1, run_id
                for row in rows:
                    self._tell(name, row)
        if self.names:
            save_json(path, {"format_version": FORMAT_VERSION, "ids": known})

    def row(self, row: Mapping[str, Any]) -> None:
        """Tell the numbers of a row of metrics.jsonl, as ``KIND/NAME``."""
        for name in list(self.live):
            self._tell(name, row)

    def pictures(self, step: int, make: Callable[[], Mapping[str, Pixels]]) -> None:
        """Tell the pictures that ``make`` gives by name, where anybody is there to see them."""
        listening = [name for name in self.live if step > self.told[name]]
        if not listening or not self.drawing:
            return
        try:
            pictures = make()
        except Exception as error:  # a picture is not worth a run
            self.drawing = False
            self.say(f"warning: no pictures for {', '.join(listening)} ({_shown(error)})")
            return
        for name in listening:
            for title, pixels in pictures.items():
                if name in self.live:
                    tracker = self.live[name]
                    self._try(name, partial(tracker.picture, step, title, pixels))

    def finish(self, step: int, evaluation: Mapping[str, Any], files: Sequence[str]) -> None:
        """Tell the judgement and the pictures of a finished run, and close.

        Args:
            step: of the end.
            evaluation: what evaluation.json holds, of which the headline numbers are told.
            files: names of pictures in the run folder; those that are absent are passed over.
        """
        self.open()
        values: dict[str, Any] = {"kind": "test", "step": step}
        for key in ("bound", "log_likelihood"):
            values[key] = (evaluation.get(key) or {}).get("value")
        values |= {key: evaluation.get(key) for key in ("bits_per_dim", "reconstruction_mse")}
        self.told = dict.fromkeys(self.told, -1)
        self.row(values)
        paths = [] if self.folder is None else [self.folder / name for name in files]
        self.pictures(step, partial(_opened, [path for path in paths if path.is_file()]))
        self.close()

    def close(self) -> None:
        """Close every tracker that still listens."""
        for name, tracker in list(self.live.items()):
            self._try(name, tracker.close)
        self.live.clear()

    def _begin(self, name: str, run: Tracked) -> None:
        self.live[name] = LOGGERS[name](run)

    def _tell(self, name: str, row: Mapping[str, Any]) -> None:
        step, kind = int(row["step"]), row["kind"]
        values = {
            f"{kind}/{key}": float(value)
            for key, value in row.items()
            if key not in ("step", "kind") and isinstance(value, bool | int | float)
        }
        if name in self.live and step > self.told[name]:
            self._try(name, partial(self.live[name].scalars, step, values))

    def _try(self, name: str, deed: Callable[[], None]) -> None:
        """Do it, or drop the tracker with a warning."""
        try:
            deed()
        except Exception as error:
            self.live.pop(name, None)
            self.say(
                f"warning: {name} failed and is told nothing more ({_shown(error)}); "
                "metrics.jsonl has it all"
            )


def _known(path: Path) -> dict[str, str]:
    """The id of the run by tracker, from trackers.json; none where there is no such file.

    Raises:
        InputError: a file that we did not write, or of a newer format.
    """
    if not path.is_file():
        return {}
    document = load_json(path)
    check_format_version(document, path)
    ids = document.get("ids")
    if not isinstance(ids, dict) or not all(isinstance(value, str) for value in ids.values()):
        raise refuse(path, "a file with the ids of a run", "one without", "remove it")
    return ids


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {printable(error, 200)}"


def _opened(paths: Sequence[Path]) -> dict[str, Pixels]:
    """Pictures (H, W, 3) of bytes by name, from their files."""
    from PIL import Image

    pictures = {}
    for path in paths:
        with Image.open(path) as image:
            pictures[f"final/{path.stem}"] = np.asarray(image.convert("RGB"))
    return pictures


def few_pictures(model: Model, source: Source) -> dict[str, Pixels]:
    """A few draws and reconstructions of images, of the same noise and examples at every call.

    Other data have none: their figures take too long for every validation, and come at the end.

    Returns:
        ``samples``: means of p(x|z), z from the prior. ``reconstructions``: validation examples
        above what is left of them.
    """
    pictures: dict[str, Pixels] = {}
    if not is_image(source.event_shape):
        return pictures
    reference = source.train[slice(0, GREY_ROWS)][0]
    with judging(model):
        if model.can_sample:
            given = contexts_for(model, NUM_SAMPLES, split=source.validation)
            means = draw(model, NUM_SAMPLES, mean=True, context=given)
            grey = shared_grey(means, source.support, reference)
            pictures["samples"] = image_grid(grey, NUM_SAMPLES // 2)
        if model.has_encoder:
            rows = slice(0, NUM_RECONSTRUCTED)
            x = source.validation[rows][0]
            means = reconstruct(model, x, context_of(model, source.validation, rows))
            pair = [shared_grey(t, source.support, reference) for t in (x.cpu(), means)]
            pictures["reconstructions"] = image_grid(torch.cat(pair), len(x))
    return pictures


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name; what is no number, truth value or text becomes a text.

    >>> flat({"seed": 0, "out": None, "options": {"latent_dim": 2, "columns": ("a", "b")}})
    {'seed': 0, 'options.latent_dim': 2, 'options.columns': "('a', 'b')"}
    """
    values: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            plain = isinstance(value, bool | int | float | str)
            values[prefix + key] = value if plain else str(value)
    return values


def _new_id(folder: Path) -> str:
    """An id that no other run has, and that a person recognises."""
    name = re.sub(r"[^A-Za-z0-9-]+", "-", folder.resolve().name).strip("-")[:60]
    return f"{name or 'run'}-{secrets.token_hex(4)}"
