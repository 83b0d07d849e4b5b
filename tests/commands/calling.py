"""What the tests of the commands share: calls in this process and in another."""

from __future__ import annotations

import subprocess
import sys

from lowerbound.cli import run_command_line

TRAIN = ["--steps", "30", "--validations", "3", "--latent-dim", "2", "--width", "16", "--quiet"]


def call(*args: object) -> int:
    return run_command_line([str(arg) for arg in args])


def refused(capsys, *args: object, code: int = 2) -> str:
    """The one line of a refusal."""
    capsys.readouterr()
    assert call(*args) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lowerbound: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def subprocess_of(*args: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "lowerbound", *map(str, args)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
