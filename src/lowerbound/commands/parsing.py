"""From arguments to a dataclass of flags; a mistake becomes one sentence.

The parser's own messages and boxes are for those who wrote the parser: what a person reads is
written here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from lowerbound.config import nearest
from lowerbound.errors import InputError, printable, refuse

__all__ = ["parse", "value_of"]

T = TypeVar("T")
PROGRAM = "lowerbound"
UNSAID = ["left", "out"]  # in place of a default, in the parser's list of words
TAKES_A_WORD = ("latents", "data", "out")  # flags that a stray word was most likely meant for


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
            parsed: tuple[Any, list[str]] = tyro.cli(
                flags,
                args=args,
                prog=f"{PROGRAM} {name}",
                default=default,
                return_unknown_args=True,
                config=(tyro.conf.FlagCreatePairsOff,),
                registry=_plain_types(),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise _mistake(heard.getvalue(), name, args, types) from None
    result: T = parsed[0]
    if strays := parsed[1]:
        raise _stray(strays[0], name, flags, types)
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


def _plain_types() -> Any:
    """Show ``int | None`` as INT and a tuple as a list: leaving a flag out says None, or none."""
    import tyro

    registry = tyro.constructors.ConstructorRegistry()
    spec = tyro.constructors.PrimitiveConstructorSpec

    @registry.primitive_rule
    def optional(info: Any) -> Any:
        parts = set(typing.get_args(info.type)) - {type(None)}
        kind = parts.pop() if len(parts) == 1 else None
        if type(None) not in typing.get_args(info.type) or kind not in (int, float, str, Path):
            return None
        return spec(
            nargs=1,
            metavar=kind.__name__.upper(),
            instance_from_str=lambda words: kind(words[0]),
            is_instance=lambda value: value is None or isinstance(value, kind),
            str_from_instance=lambda value: UNSAID if value is None else [str(value)],
        )

    @registry.primitive_rule
    def several(info: Any) -> Any:
        parts = [part for part in _parts(info.type) if part is not type(None)]
        if len(parts) != 1 or typing.get_origin(parts[0]) is not tuple:
            return None
        kind, *more = typing.get_args(parts[0])
        choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
        if more != [...]:
            return None
        if kind not in (str, int, float, Path) and not choices:
            return None
        kind, one = (str, "|".join(choices)) if choices else (kind, kind.__name__.upper())
        is_optional = len(_parts(info.type)) > 1
        return spec(
            nargs="*",
            metavar=f"{one} …",
            choices=choices or None,
            instance_from_str=lambda words: (
                None if is_optional and words == ["None"] else tuple(kind(word) for word in words)
            ),
            is_instance=lambda value: isinstance(value, tuple) or (is_optional and value is None),
            str_from_instance=lambda values: [str(value) for value in values or ()] or UNSAID,
        )

    return registry


def _parts(kind: Any) -> tuple[Any, ...]:
    """The members of a union; of any other type itself."""
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if is_union else (kind,)


def _stray(word: str, name: str, flags: Any, types: dict[str, Any]) -> InputError:
    """The refusal of a word that no flag stands before, with the flag that was likely meant."""
    if word.startswith("-"):
        return InputError(f"{name} has no flag '{printable(word)}'; see `{PROGRAM} {name} --help`")
    placed = typing.get_type_hints(flags, include_extras=True)
    free = {
        flag
        for flag, kind in types.items()
        if _described(kind) in ("a path", "a text")
        and not _is_positional(placed.get(flag[2:].replace("-", "_")))
    }
    meant = [f"--{flag}" for flag in TAKES_A_WORD if f"--{flag}" in free]
    if word.isdecimal() and "--num" in types:
        meant = ["--num"]
    remedy = f"did you mean {meant[0]} {printable(word)}?" if meant else "leave it out"
    return InputError(f"{name} has no use for '{printable(word)}' without a flag; {remedy}")


def _is_positional(hint: Any) -> bool:
    import tyro

    return tyro.conf.Positional in getattr(hint, "__metadata__", ())


def _mistake(box: str, name: str, args: list[str], types: dict[str, Any]) -> InputError:
    """The sentence inside the parser's box of lines, as an error of ours."""
    # Boxes are drawn with lines or, where the output knows no Unicode, with dashes.
    body = re.sub(r"[│|╭╮╰╯+]", " ", box.partition("\n")[2])
    parts = (" ".join(part.split()) for part in re.split(r"[─-]{4,}|For full helptext", body))
    text = next((part for part in parts if part), "")
    found = re.match(r"(?:Error parsing|invalid choice .* for argument) '?(--[\w-]+)", text)
    if found and found[1] in types:
        given = value_of(args, found[1])
        remedy = f"see `{PROGRAM} {name} --help`"
        if choices := _choices(types[found[1]]):
            said = _values_of(args, found[1])
            given = next((word for word in said if word not in choices), given)
            required = f"one of {', '.join(map(str, choices))}"
            remedy = nearest(str(given), map(str, choices)) or remedy
            return refuse(found[1].lstrip("-"), required, given, remedy)
        return refuse(found[1].lstrip("-"), _described(types[found[1]]), given, remedy)
    if missing := re.match(r"Missing from [\w ]+: (\w+) (.*?)\.? \(required\)", text):
        what = missing[2][:1].lower() + missing[2][1:]
        usage = f"`{PROGRAM} {name} {missing[1]}`"
        return InputError(f"{name} needs {missing[1]}, the {what}, as in {usage}")
    if own := re.match(r"Error parsing (?!--)\S+: (.*)", text):
        return InputError(own[1])  # a refusal of ours, raised while the flags were built
    return InputError(f"{text or 'these arguments cannot be read'}; see `{PROGRAM} {name} --help`")


def _choices(kind: Any) -> list[Any]:
    """The words that a flag of this type takes; none where it takes others too."""
    if typing.get_origin(kind) is Literal:
        return list(typing.get_args(kind))
    inner = [part for part in typing.get_args(kind) if part not in (..., type(None))]
    return _choices(inner[0]) if len(inner) == 1 else []


def _described(kind: Any) -> str:
    """A type as a person says it."""
    if typing.get_origin(kind) is Literal:
        return " or ".join(str(choice) for choice in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        each = _described(typing.get_args(kind)[0])
        return f"{each.removeprefix('a ')}s, with spaces between them"
    parts = [_described(p) for p in typing.get_args(kind) if p is not type(None)]
    words = {int: "a whole number", float: "a number", str: "a text", Path: "a path"}
    return " or ".join(parts) if parts else words.get(kind, str(kind))


def value_of(args: Sequence[str], flag: str) -> str | None:
    """The value that a flag is given, found before the flags are known."""
    for i, arg in enumerate(args):
        if arg == flag and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith(flag + "="):
            return arg.partition("=")[2]
    return None


def _values_of(args: Sequence[str], flag: str) -> list[str]:
    """Every word that a flag is given: up to the next flag."""
    if flag not in args:
        given = value_of(args, flag)
        return [] if given is None else [given]
    after = args[list(args).index(flag) + 1 :]
    return list(itertools.takewhile(lambda word: not word.startswith("--"), after))
