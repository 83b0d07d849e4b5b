"""A disk that fails, dies or forgets on demand: every call below one folder goes through it.

`Disk` takes the place of the functions of `os` that write, while it is entered. It counts the
calls that touch its folder and hands each to ``react`` beforehand, which may raise, kill the
process, or do nothing; and it records what happened, for `states_after_power_loss` to replay.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

CALLS = ("statvfs", "mkdir", "open", "write", "fsync", "close", "rename", "unlink", "rmdir")
React = Callable[[int, str, str], int | None]


@dataclass
class Event:
    """One call: its name, the path (with the old name first where there are two), the bytes."""

    call: str
    path: str
    target: str = ""
    data: bytes = b""


class Disk:
    """The calls of ``os`` below ``folder``, counted, recorded and made to fail.

    Args:
        folder: calls elsewhere are let through untouched.
        react: called with (number of the call from 1, its name, its path) before each call; it
            may raise, or return how many bytes a write is to take.
    """

    def __init__(self, folder: Path, react: React = lambda number, call, path: None) -> None:
        self.folder, self.react = str(folder), react
        self.count = 0
        self.events: list[Event] = []
        self.paths: dict[int, str] = {}

    def __enter__(self) -> Disk:
        self.real = {name: getattr(os, name) for name in CALLS}
        for name in CALLS:
            setattr(os, name, getattr(self, "_" + name))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name, function in self.real.items():
            setattr(os, name, function)

    def _where(self, path: Any, dir_fd: int | None) -> str | None:
        """The whole path if it lies in our folder."""
        if isinstance(path, int):
            return self.paths.get(path)
        whole = os.path.join(self.paths.get(dir_fd, "?"), path) if dir_fd is not None else path
        whole = os.fspath(whole)
        return whole if whole.startswith(self.folder) else None

    def _seen(self, call: str, path: str) -> int | None:
        self.count += 1
        return self.react(self.count, call, path)

    def _plain(self, call: str, path: Any, *args: Any, dir_fd: int | None = None, **more: Any):
        where = self._where(path, dir_fd)
        if dir_fd is not None:
            more["dir_fd"] = dir_fd
        if where is None:
            return self.real[call](path, *args, **more)
        self._seen(call, where)
        result = self.real[call](path, *args, **more)
        self.events.append(Event(call, where))
        return result

    def _statvfs(self, path: Any):
        return self._plain("statvfs", path)

    def _mkdir(self, path: Any, *args: Any, **more: Any):
        return self._plain("mkdir", path, *args, **more)

    def _unlink(self, path: Any, **more: Any):
        return self._plain("unlink", path, **more)

    def _rmdir(self, path: Any, **more: Any):
        return self._plain("rmdir", path, **more)

    def _fsync(self, path: Any):
        return self._plain("fsync", path)

    def _close(self, descriptor: int):
        if descriptor not in self.paths:
            return self.real["close"](descriptor)
        path = self.paths.pop(descriptor)
        try:
            self._seen("close", path)
        finally:  # a close that fails closes all the same
            self.real["close"](descriptor)

    def _open(self, path: Any, flags: int, *args: Any, dir_fd: int | None = None, **more: Any):
        where = self._where(path, dir_fd)
        if dir_fd is not None:
            more["dir_fd"] = dir_fd
        if where is None:
            return self.real["open"](path, flags, *args, **more)
        self._seen("open", where)
        descriptor = self.real["open"](path, flags, *args, **more)
        self.paths[descriptor] = where
        if flags & os.O_CREAT:
            self.events.append(Event("create", where))
        return descriptor

    def _write(self, descriptor: int, data: Any):
        if descriptor not in self.paths:
            return self.real["write"](descriptor, data)
        limit = self._seen("write", self.paths[descriptor])
        written = self.real["write"](descriptor, data if limit is None else data[:limit])
        self.events.append(Event("write", self.paths[descriptor], data=bytes(data[:written])))
        return written

    def _rename(self, source: Any, target: Any, **more: Any):
        if self._where(source, None) is None:
            return self.real["rename"](source, target, **more)
        self._seen("rename", os.fspath(source))
        self.real["rename"](source, target, **more)
        self.events.append(Event("rename", os.fspath(source), os.fspath(target)))


def failing(number: int, error: int, forever: bool = False) -> React:
    """React with an error at call ``number``, once or from then on."""

    def react(count: int, call: str, path: str) -> None:
        if count == number or (forever and count > number):
            raise OSError(error, os.strerror(error), path)

    return react


def dying(number: int) -> React:
    """Kill the process before call ``number``, as the kernel or a cable would."""

    def react(count: int, call: str, path: str) -> None:
        if count == number:
            os.kill(os.getpid(), 9)

    return react


# --- power loss ---------------------------------------------------------------------------------


@dataclass
class _File:
    data: bytearray = field(default_factory=bytearray)


@dataclass
class _Folder:
    entries: dict[str, _File | _Folder] = field(default_factory=dict)


@dataclass
class _Effect:
    """What one call does to one node; it is safe once that node is flushed."""

    node: _File | _Folder
    name: str = ""
    new: _File | _Folder | None = None
    data: bytes = b""
    at: int = 0


def _effects(events: list[Event], root: str, nodes: dict[str, Any]) -> list[Any]:
    """Calls as effects on nodes, and each flush as the node that it makes safe."""
    found: list[Any] = []

    def parent(path: str) -> tuple[_Folder, str]:
        folder, _, name = path.rpartition("/")
        return nodes[folder], name

    for event in events:
        if event.call in ("mkdir", "create"):
            nodes[event.path] = _Folder() if event.call == "mkdir" else _File()
            folder, name = parent(event.path)
            found.append([_Effect(folder, name, nodes[event.path])])
        elif event.call == "write":
            node = nodes[event.path]
            found.append([_Effect(node, data=event.data, at=len(node.data))])
            node.data += event.data
        elif event.call == "fsync":
            found.append(nodes[event.path])
        elif event.call in ("unlink", "rmdir"):
            folder, name = parent(event.path)
            found.append([_Effect(folder, name)])
            del nodes[event.path]
        elif event.call == "rename":
            (old, old_name), (new, new_name) = parent(event.path), parent(event.target)
            moved = {p: n for p, n in nodes.items() if (p + "/").startswith(event.path + "/")}
            # One effect where both names lie in one folder: a rename is atomic, kept or lost.
            found.append([_Effect(old, old_name), _Effect(new, new_name, nodes[event.path])])
            for path, node in moved.items():
                del nodes[path]
                nodes[event.target + path[len(event.path) :]] = node
    return found


def states_after_power_loss(
    events: list[Event], root: Path, chosen: random.Random, num: int
) -> Iterator[tuple[int, Callable[[Path], None]]]:
    """``num`` states in which the disk may wake up: how many events had happened, and a writer.

    At a random prefix of the events everything that was flushed is there; of the rest a random
    subset is, in any order that the events allow, and lost bytes read as zeros or are missing.
    """
    tree = _Folder()
    effects = _effects(events, str(root), {str(root): tree})
    for _ in range(num):
        length = chosen.randint(1, len(effects))
        keep_share = chosen.choice([0.0, 0.2, 0.5, 0.8, 1.0])
        state = _replayed(effects[:length], tree, chosen, keep_share)
        yield length, lambda to, state=state: _materialise(state, to)


def _replayed(effects: list[Any], tree: _Folder, chosen: random.Random, share: float) -> _Folder:
    """The tree that the flushed effects and a random share of the others leave."""
    safe_after: dict[int, int] = {}  # id of a node -> index of its last flush
    for index, effect in enumerate(effects):
        if not isinstance(effect, list):
            safe_after[id(effect)] = index
    entries: dict[int, dict[str, Any]] = {}
    data: dict[int, bytearray] = {}
    for index, effect in enumerate(effects):
        if not isinstance(effect, list):
            continue
        safe = all(safe_after.get(id(part.node), -1) > index for part in effect)
        fate = "kept" if safe or chosen.random() < share else chosen.choice(["lost", "zeros"])
        for part in effect:
            if isinstance(part.node, _File):
                content = data.setdefault(id(part.node), bytearray())
                if fate != "lost":
                    content.extend(bytes(max(0, part.at - len(content))))
                    content.extend(part.data if fate == "kept" else bytes(len(part.data)))
            elif fate == "kept" and part.new is None:
                entries.setdefault(id(part.node), {}).pop(part.name, None)
            elif fate == "kept":
                entries.setdefault(id(part.node), {})[part.name] = part.new
    return _built(tree, entries, data)


def _built(node: Any, entries: dict[int, dict[str, Any]], data: dict[int, bytearray]) -> Any:
    if isinstance(node, _File):
        return _File(data.get(id(node), bytearray()))
    inside = entries.get(id(node), {})
    return _Folder({name: _built(child, entries, data) for name, child in inside.items()})


def _materialise(node: _Folder, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for name, child in node.entries.items():
        if isinstance(child, _Folder):
            _materialise(child, to / name)
        else:
            (to / name).write_bytes(bytes(child.data))


@contextlib.contextmanager
def counting(folder: Path) -> Iterator[Disk]:
    """A disk that only counts and records."""
    with Disk(folder) as disk:
        yield disk
