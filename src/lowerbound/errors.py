"""Every refusal of the library: what it is, and the exit code it becomes on the command line.

A message reads ``'NAME' must be …, got …; do …``: what is meant, what is required, what was
given, and what to do about it. `refuse` builds it, so that no message forgets a part.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "DivergedError",
    "InputError",
    "Interrupted",
    "LostProcessError",
    "LowerboundError",
    "ResourceError",
    "printable",
    "refuse",
]


class LowerboundError(Exception):
    """Base of all errors that the library raises on purpose; ``code`` is the exit code."""

    code = 1


class InputError(LowerboundError, ValueError):
    """Bad input or usage, or a run folder without a model (exit code 2)."""

    code = 2


class CheckpointError(LowerboundError):
    """Checkpoints exist and none of them can be used (exit code 3)."""

    code = 3


class ResourceError(LowerboundError):
    """Something could not be written, or memory ran out (exit code 4)."""

    code = 4


class LostProcessError(ResourceError):
    """Another process of a run on several devices has gone (exit code 4)."""


class DivergedError(LowerboundError):
    """Training produced non-finite numbers step after step (exit code 5)."""

    code = 5


class Interrupted(LowerboundError):
    """The run was asked to stop, and has saved its state (exit code 128 + signal number)."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.code = 128 + signal_number


def printable(value: object, limit: int = 120) -> str:
    r"""One harmless line: control characters escaped, long text cut in the middle.

    >>> printable("a\nb")
    'a\\nb'
    """
    text = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value)
    )
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 2 :]}"


def refuse(name: object, required: str, given: object, remedy: str = "") -> InputError:
    """The one form of an input error, to be raised by the caller.

    >>> print(refuse("latent_dim", "at least 1", 0, "try 2 or more"))
    'latent_dim' must be at least 1, got 0; try 2 or more
    """
    end = f"; {remedy}" if remedy else ""
    return InputError(f"'{printable(name)}' must be {required}, got {printable(given)}{end}")
