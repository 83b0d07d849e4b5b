"""Help: instant, complete, and in sentences."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from lowerbound.commands import COMMANDS
from lowerbound.errors import (
    CheckpointError,
    DivergedError,
    InputError,
    LowerboundError,
    ResourceError,
)
from tests.commands.calling import call


@pytest.mark.parametrize("args", [["--help"], ["train", "--help"], ["models"]])
def test_help_imports_no_torch(args):
    code = (
        "import sys\nfrom lowerbound.cli import run_command_line\n"
        f"try: run_command_line({args!r})\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        call(name, "--help")
    assert not stop.value.code
    text = capsys.readouterr().out
    assert f"usage: lowerbound {name}" in text
    assert "None" not in text
    assert "[[" not in text
    assert "options options" not in text


def test_the_models_own_flags_have_a_sentence_each(capsys):
    with pytest.raises(SystemExit):
        call("train", "--model", "vae", "--help")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--latent-dim INT Number of latent dimensions d." in text
    assert "--kl {analytic,sampled} KL(q ‖ p) in closed form" in text
    assert " vae options " in text
    assert "options options" not in text
    assert "None" not in text
    assert "(default: left out)" in text
    assert "(default: )" not in text


def test_the_overview_names_every_command(capsys):
    assert call() == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


def test_the_overview_lists_every_exit_code_that_an_error_can_have(capsys):
    call("--help")
    text = capsys.readouterr().out.partition("exit codes:")[2]
    listed = {int(number) for number in re.findall(r"(?:^|  )(\d+)  ?\w", text, re.M)}
    kinds = [InputError, CheckpointError, ResourceError, DivergedError, LowerboundError]
    assert listed == {0, 130, 143} | {kind.code for kind in kinds}
