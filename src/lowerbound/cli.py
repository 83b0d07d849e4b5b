"""The command line: one verb per deed, one line per refusal.

Each command is a dataclass of flags and a function. Nothing here imports torch before a command
needs it, so that ``--help`` is instant.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from lowerbound.commands import COMMANDS, TrainFlags
from lowerbound.config import RunConfig, load_config, nearest
from lowerbound.errors import InputError, Interrupted, LowerboundError, printable, refuse

__all__ = ["run_command_line"]

T = TypeVar("T")
PROGRAM = "lowerbound"


def run_command_line(args: Sequence[str]) -> int:
    """Run one command and give its exit code; errors are one line on standard error."""
    debug = "--debug" in args
    try:
        with _leaving_when_asked():
            return _dispatch(list(args))
    except Interrupted as asked:  # what was asked for is no error
        print(f"{PROGRAM}: {printable(asked, 600)}", file=sys.stderr)
        return asked.code
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
    return command.run(flags) or 0


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
    ]
    return "\n".join(lines)


def parse(flags: type[T], name: str, args: list[str], default: T | None = None) -> T:
    """Flags of a command from its arguments; a mistake is one line that names the nearest."""
    import tyro

    types = _flag_types(flags, default)
    for arg in args:
        flag = arg.split("=")[0].replace("_", "-")
        if re.match(r"--[a-z]", flag) and flag not in {*types, "--help"}:
            hint = nearest(flag, types) or f"see `{PROGRAM} {name} --help`"
            raise InputError(f"{name} has no flag '{printable(flag)}'; {hint}")
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard):
            parsed: Any = tyro.cli(
                flags,
                args=args,
                prog=f"{PROGRAM} {name}",
                default=default,
                config=(tyro.conf.FlagCreatePairsOff,),
                registry=_plain_optionals(),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise _mistake(heard.getvalue(), name, args, types) from None
    result: T = parsed
    return result


def _flag_types(flags: Any, default: Any) -> dict[str, Any]:
    """The type behind each flag, those of the model's options included."""
    kinds = [flags]
    if dataclasses.is_dataclass(getattr(default, "options", None)):
        kinds.append(type(default.options))
    return {
        "--" + name.replace("_", "-"): hint
        for kind in kinds
        for name, hint in typing.get_type_hints(kind).items()
        if name in {f.name for f in dataclasses.fields(kind)}
    }


def _plain_optionals() -> Any:
    """Show ``int | None`` as INT: leaving a flag out is how one says None."""
    import tyro

    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def optional(info: Any) -> Any:
        parts = set(typing.get_args(info.type)) - {type(None)}
        kind = parts.pop() if len(parts) == 1 else None
        if type(None) not in typing.get_args(info.type) or kind not in (int, float, str, Path):
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar=kind.__name__.upper(),
            instance_from_str=lambda words: kind(words[0]),
            is_instance=lambda value: value is None or isinstance(value, kind),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _mistake(box: str, name: str, args: list[str], types: dict[str, Any]) -> InputError:
    """The sentence inside the parser's box of lines, as an error of ours."""
    # Boxes are drawn with lines or, where the output knows no Unicode, with dashes.
    body = re.sub(r"[│|╭╮╰╯+]", " ", box.partition("\n")[2])
    parts = (" ".join(part.split()) for part in re.split(r"[─-]{4,}|For full helptext", body))
    text = next((part for part in parts if part), "")
    found = re.match(r"Error parsing (--[\w-]+)", text)
    if found and found[1] in types:
        given = _value_of(args, found[1])
        remedy = f"see `{PROGRAM} {name} --help`"
        return refuse(found[1].lstrip("-"), _described(types[found[1]]), given, remedy)
    if own := re.match(r"Error parsing (?!--)\S+: (.*)", text):
        return InputError(own[1])  # a refusal of ours, raised while the flags were built
    return InputError(f"{text or 'these arguments cannot be read'}; see `{PROGRAM} {name} --help`")


def _described(kind: Any) -> str:
    """A type as a person says it."""
    if typing.get_origin(kind) is Literal:
        return " or ".join(str(choice) for choice in typing.get_args(kind))
    parts = [_described(p) for p in typing.get_args(kind) if p is not type(None)]
    words = {int: "a whole number", float: "a number", str: "a text", Path: "a path"}
    return " or ".join(parts) if parts else words.get(kind, str(kind))


def _value_of(args: Sequence[str], flag: str) -> str | None:
    """The value that a flag is given, found before the flags are known."""
    for i, arg in enumerate(args):
        if arg == flag and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith(flag + "="):
            return arg.partition("=")[2]
    return None


def train_flags(args: list[str]) -> Any:
    """Flags of ``train``: those of the run, and those of the model that is named.

    Defaults are overridden by a config file, and that by flags.
    """
    from lowerbound.build import model_entry

    asks_help = bool({"-h", "--help"} & set(args))
    name, config = _value_of(args, "--model"), _value_of(args, "--config")
    again = _value_of(args, "--resume")
    values: dict[str, Any] = {}
    if again is not None and not asks_help:
        from lowerbound.run import newest_unfinished

        again = str(newest_unfinished()) if again == "auto" else again
        if not (Path(again) / "config.yaml").is_file():
            raise refuse("resume", "the folder of a run, or auto", again)
        config = str(Path(again) / "config.yaml")
    if config is not None:
        values = load_config(config)
    if asks_help and name is None:
        return parse(TrainFlags, "train", args)
    name = name or str(values.get("model", RunConfig.model))
    model_entry(name)
    default = _train_default(name, values, config or "the configuration")
    flags = parse(type(default), "train", args, default)
    if again is not None:
        if not flags.allow_changed:
            _refuse_changes(default, flags)
        flags = dataclasses.replace(flags, resume=again)
    return flags


def _train_default(name: str, values: dict[str, Any], where: str) -> Any:
    """An instance of the flags of one model, filled from a config file."""
    from lowerbound.build import options_class
    from lowerbound.run import config_from

    kind = options_class(name)
    if values.get("model", name) != name:
        values = {**values, "options": None}
    config = config_from({**values, "model": name}, where)
    options = kind(**dict(config.options or {}))
    made = dataclasses.make_dataclass(
        "TrainFlags",
        [("options", _flat(kind), dataclasses.field(default=options))],
        bases=(TrainFlags,),
        frozen=True,
    )
    made.__doc__ = TrainFlags.__doc__
    filled = {f.name: getattr(config, f.name) for f in dataclasses.fields(RunConfig)}
    return made(**{**filled, "options": options})


def _flat(kind: Any) -> Any:
    """A dataclass whose fields are flags of their own, without a prefix."""
    import tyro

    return tyro.conf.OmitArgPrefixes[kind]  # type: ignore[misc]


def _refuse_changes(before: Any, after: Any) -> None:
    """A resumed run keeps its configuration: what was changed is named."""
    for field in dataclasses.fields(RunConfig):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old != new:
            raise refuse(
                field.name,
                f"as the run began, {printable(old)}",
                new,
                "leave it out to continue, say --allow-changed, or start a new run with --config",
            )
