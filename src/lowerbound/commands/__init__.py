"""The commands: flags as dataclasses, deeds as functions that call the library.

Results go to standard output, everything else to standard error; ``--json`` prints one JSON object
and nothing beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import tyro

from lowerbound.commands.about import (
    DatasetsFlags,
    DoctorFlags,
    ModelsFlags,
    datasets,
    doctor,
    models,
)
from lowerbound.commands.coding import DecodeFlags, EncodeFlags, decode, encode
from lowerbound.commands.comparing import CompareFlags, compare
from lowerbound.commands.judging import EvaluateFlags, ScoreFlags, evaluate, score
from lowerbound.commands.making import (
    InterpolateFlags,
    ReconstructFlags,
    interpolate,
    reconstruct,
)
from lowerbound.commands.refitting import RefitFlags, refit
from lowerbound.commands.sampling import SampleFlags, sample
from lowerbound.commands.training import TrainFlags, train

__all__ = ["COMMANDS", "Command", "TrainFlags"]


@dataclass(frozen=True)
class CompletionFlags:
    """Print a completion script; e.g. eval "$(lowerbound completion bash)"."""

    shell: tyro.conf.Positional[Literal["bash", "zsh", "tcsh"]] = "bash"
    """Which shell."""
    debug: bool = False
    """Show where an error came from."""


def completion(flags: CompletionFlags) -> None:
    """``lowerbound completion``."""
    everything: dict[str, Any] = {name: command.flags for name, command in COMMANDS.items()}
    tyro.extras.subcommand_cli_from_dict(
        everything,
        prog="lowerbound",
        args=["--tyro-print-completion", flags.shell],
        config=(tyro.conf.FlagCreatePairsOff,),
    )


@dataclass(frozen=True)
class Command:
    """A verb: its flags, what it does with them, and a sentence."""

    flags: type[Any]
    run: Callable[[Any], int | None]
    summary: str


COMMANDS: dict[str, Command] = {
    "train": Command(TrainFlags, train, "train a model, judge it, draw it: a run with a report"),
    "refit": Command(RefitFlags, refit, "another prior for a trained model, fitted to its codes"),
    "evaluate": Command(EvaluateFlags, evaluate, "bound, log-likelihood, what stands beside them"),
    "sample": Command(SampleFlags, sample, "draw from p(x) into a picture or an array"),
    "reconstruct": Command(ReconstructFlags, reconstruct, "examples beside their reconstructions"),
    "interpolate": Command(InterpolateFlags, interpolate, "walk between examples' latents"),
    "encode": Command(EncodeFlags, encode, "examples to latents"),
    "decode": Command(DecodeFlags, decode, "latents to examples"),
    "score": Command(ScoreFlags, score, "the bound of each example, as a table"),
    "compare": Command(CompareFlags, compare, "runs beside one another"),
    "models": Command(ModelsFlags, models, "the models there are"),
    "datasets": Command(DatasetsFlags, datasets, "how data are named"),
    "doctor": Command(DoctorFlags, doctor, "what this machine has"),
    "completion": Command(CompletionFlags, completion, "completion script for bash, zsh or tcsh"),
}
"""Every command by its name."""
