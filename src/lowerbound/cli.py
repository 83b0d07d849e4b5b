"""The command line: one verb per deed, one line per refusal.

Each command is a dataclass of flags and a function. Nothing here imports torch before a command
needs it, so that ``--help`` is instant.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from lowerbound.commands import COMMANDS, TrainFlags
from lowerbound.commands.parsing import parse, value_of
from lowerbound.config import LENGTHS, PLACES, RunConfig, load_config, nearest
from lowerbound.errors import (
    InputError,
    Interrupted,
    LostProcessError,
    LowerboundError,
    printable,
    refuse,
)
from lowerbound.launch import is_launched, is_watched, watch

__all__ = ["run_command_line"]

PROGRAM = "lowerbound"
EXIT_CODES = """\
exit codes:
  0  done                                    4  could not write, or out of memory
  1  a bug: please send the log it names     5  training diverged
  2  bad input or usage                    130  stopped by Ctrl-C, after saving
  3  no checkpoint of the run is good      143  stopped by SIGTERM, after saving"""


def run_command_line(args: Sequence[str]) -> int:
    """Run one command and give its exit code; errors are one line on standard error."""
    debug = "--debug" in args
    try:
        with _leaving_when_asked():
            return _dispatch(list(args))
    except Interrupted as asked:  # what was asked for is no error
        print(f"{PROGRAM}: {printable(asked, 600)}", file=sys.stderr)
        return asked.code
    except LostProcessError as error:
        return error.code if is_watched() else _fail(str(error), error.code)
    except LowerboundError as error:
        if debug:
            traceback.print_exc()
        return _fail(str(error), error.code)
    except KeyboardInterrupt as asked:
        number = asked.args[0] if asked.args else signal.SIGINT
        return _fail("interrupted; nothing was left half written", 128 + number)
    except MemoryError:
        return _fail("out of memory; try a smaller --batch-size or fewer --samples", 4)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if debug:
            traceback.print_exc()
        where = f" '{printable(error.filename)}'" if error.filename else ""
        return _fail(f"could not read or write{where}: {error.strerror or error}", 4)
    except Exception as error:
        if debug:
            raise
        return _unexpected(error)


@contextlib.contextmanager
def _leaving_when_asked() -> Iterator[None]:
    """Make SIGTERM leave as Ctrl-C does, through every clean-up; a training loop saves first.

    What a signal raises inside a finaliser is swallowed by the interpreter: it is raised again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def leave(number: int, frame: object) -> None:
        asked.append(number)
        raise KeyboardInterrupt(asked[0])

    def swallowed(what: Any) -> None:
        if isinstance(what.exc_value, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            hook(what)

    before = {n: signal.signal(n, leave) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    hook, sys.unraisablehook = sys.unraisablehook, swallowed
    try:
        yield
    except Interrupted:  # says more than that it was
        raise
    except Exception as error:
        if asked:  # an import that is interrupted says that it failed
            raise KeyboardInterrupt(asked[0]) from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(message: str, code: int) -> int:
    print(f"{PROGRAM}: error: {printable(message, 600)}", file=sys.stderr)
    return code


def _unexpected(error: Exception) -> int:
    """A bug, or memory that ran out inside a library."""
    if "out of memory" in str(error).lower() or "can't allocate" in str(error).lower():
        return _fail("out of memory; try a smaller --batch-size or fewer --samples", 4)
    with tempfile.NamedTemporaryFile(
        "w", prefix="lowerbound-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write(traceback.format_exc())
    return _fail(
        f"this is a bug: {type(error).__name__}: {printable(error, 200)}; "
        f"please report it with {log.name}",
        1,
    )


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if args[0] in ("-V", "--version", "version"):
        from lowerbound import __version__

        print(f"{PROGRAM} {__version__}")
        return 0
    name, *rest = args
    if name not in COMMANDS:
        hint = nearest(name, COMMANDS) or f"see `{PROGRAM} --help`"
        raise InputError(f"there is no command '{printable(name)}'; {hint}")
    command = COMMANDS[name]
    flags = train_flags(rest) if name == "train" else parse(command.flags, name, rest)
    if getattr(flags, "devices", 1) > 1 and not is_launched():
        from lowerbound.engine import check_devices

        check_devices(flags.device, flags.devices)
        return watch(_settled(args, getattr(flags, "resume", None)), flags.devices)
    return command.run(flags) or 0


def _settled(args: list[str], run: Any) -> list[str]:
    """Arguments in which ``--resume auto`` is the run that was found: all processes take that."""
    given = value_of(args, "--resume")
    if given != "auto":
        return args
    at = next(i for i, arg in enumerate(args) if arg.startswith("--resume"))
    end = at + (1 if "=" in args[at] else 2)
    return [*args[:at], "--resume", str(run), *args[end:]]


def _overview() -> str:
    lines = [f"usage: {PROGRAM} COMMAND …   ({PROGRAM} COMMAND --help says more)", ""]
    lines += [
        "Latent-variable generative models, trained and judged by one number:",
        "a lower bound on log p(x), in nats.",
        "",
    ]
    lines += [f"  {name:12} {command.summary}" for name, command in COMMANDS.items()]
    lines += [
        "",
        "examples:",
        f"  {PROGRAM} train                                     a VAE on digits, in half a minute",
        f"  {PROGRAM} train mnist:DIR --binarize dynamic --minutes 5",
        f"  {PROGRAM} evaluate runs/digits-vae-1 --samples 1000",
        "",
        EXIT_CODES,
    ]
    return "\n".join(lines)


def train_flags(args: list[str]) -> Any:
    """Flags of ``train``: those of the run, and those of the model that is named.

    Defaults are overridden by a config file, and that by flags.
    """
    from lowerbound.build import model_entry
    from lowerbound.presets import PRESETS, with_preset

    asks_help = bool({"-h", "--help"} & set(args))
    named, config = value_of(args, "--model"), value_of(args, "--config")
    again = value_of(args, "--resume")
    values: dict[str, Any] = {}
    if again is not None and not asks_help:
        from lowerbound.run import newest_unfinished

        if again == "auto":  # where several processes train, one of them may hold the lock already
            again = str(newest_unfinished(skip_locked=not is_launched()))
        if not Path(again).exists():
            wanted = "--resume takes the folder of a run, or auto"
            raise InputError(f"'{printable(again)}' does not exist; {wanted}")
        if not (Path(again) / "config.yaml").is_file():
            raise refuse("resume", "the folder of a run, or auto", again)
        config = str(Path(again) / "config.yaml")
    if config is not None:
        values = load_config(config)
    if asks_help and named is None:
        return parse(TrainFlags, "train", args)
    name = named or str(values.get("model", RunConfig.model))
    if name not in PRESETS:
        model_entry(name)
    name, values = with_preset(name, values, named_after=named is not None)
    if again is None:
        said = {key: value_of(args, f"--{key}") for key in ("objective", "elbo-first")}
        objective = said["objective"] or str(values.get("objective", "elbo"))
        turns = bool(said["elbo-first"] or values.get("elbo_first"))
        values = {**model_entry(name).usual(objective, elbo_first=turns), **values}
    where = config or "the configuration"
    default = before = _train_default(name, values, where)
    if any(value_of(args, f"--{length}") is not None for length in LENGTHS):
        kept = {k: v for k, v in values.items() if k not in LENGTHS}  # a run has one length
        default = _train_default(name, kept, where)
    flags = parse(type(default), "train", args, default)
    flags = dataclasses.replace(flags, model=name)
    if again is not None:
        if not flags.allow_changed:
            _refuse_changes(before, flags)
        flags = dataclasses.replace(flags, resume=again)
    return flags


def _train_default(name: str, values: dict[str, Any], where: str) -> Any:
    """An instance of the flags of one model, filled from a config file."""
    from lowerbound.build import options_class
    from lowerbound.run import config_from

    kind = options_class(name)
    config = config_from(values, where)
    options = kind(**dict(config.options or {}))
    made = dataclasses.make_dataclass(
        "TrainFlags",
        [("options", _flat(kind, name), dataclasses.field(default=options))],
        bases=(TrainFlags,),
        frozen=True,
    )
    made.__doc__ = TrainFlags.__doc__
    filled = {f.name: getattr(config, f.name) for f in dataclasses.fields(RunConfig)}
    return made(**{**filled, "options": options})


def _flat(kind: Any, name: str) -> Any:
    """A dataclass whose fields are flags without a prefix, in a box titled with the model."""
    import tyro

    return Annotated[kind, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name=name)]


def _refuse_changes(before: Any, after: Any) -> None:
    """A resumed run keeps its configuration: what was changed is named."""
    for field in dataclasses.fields(RunConfig):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old != new and field.name not in PLACES:
            raise refuse(
                field.name,
                f"as the run began, {printable(old)}",
                new,
                "leave it out to continue, say --allow-changed, or start a new run with --config",
            )
