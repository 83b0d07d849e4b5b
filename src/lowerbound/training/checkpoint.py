"""Checkpoints that are whole or absent.

    checkpoints/step-00001200/   appears only by rename from .tmp-…
        model.safetensors  average.safetensors  optimizer.safetensors   tensors
        state.json                                                      every scalar
        MANIFEST.json   written last: name of the folder, size and SHA-256 of each file, of itself

A reader trusts nothing but the manifest: it verifies every byte, newest first, says which
checkpoints it had to reject, and falls back. The order of writing (files, flush, manifest, flush,
rename, flush the parent) is what makes a crash at any point leave the old state or the new one.
Tensors are written as they lie in memory, piece by piece: a save needs no second copy of the state
(on another device, of a few tensors at a time).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from lowerbound._parallel import like, whole
from lowerbound.errors import CheckpointError, printable, refuse
from lowerbound.files import (
    FORMAT_VERSION,
    check_format_version,
    flush,
    not_written,
    write_flushed,
)
from lowerbound.training.tensors import pieces_of

__all__ = [
    "Checkpoint",
    "RunLock",
    "checkpoints_of",
    "is_locked",
    "load_newest",
    "optimizer_tensors",
    "prune",
    "restore_optimizer",
    "save_checkpoint",
    "sweep",
]

KEEP_LAST = 3
OVERHEAD_BYTES = 2**16  # headers, manifest, and the ends of blocks
MANIFEST = "MANIFEST.json"
NAME = re.compile(r"step-\d{8,}")
Groups = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Checkpoint:
    """What a verified checkpoint holds."""

    path: Path
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


class RunLock:
    """An exclusive lock on a run folder, so that two trainers never write into one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "run.lock"

    def __enter__(self) -> RunLock:
        self.file = open(self.path, "w")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.file.close()
            raise refuse(
                self.path.parent,
                "a run folder that nobody else writes to",
                "one that is being trained",
                "wait for it, or choose another --out",
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.file.close()


def is_locked(folder: Path) -> bool:
    """Whether another process holds the `RunLock` of a run folder."""
    try:
        with open(folder / "run.lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock was ever taken there
        return False
    return False


def checkpoints_of(run: Path) -> list[Path]:
    """The committed checkpoints of a run, newest first."""
    found = [p for p in (run / "checkpoints").glob("step-*") if NAME.fullmatch(p.name)]
    return sorted(found, key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def save_checkpoint(run: Path, step: int, tensors: Groups, state: Mapping[str, Any]) -> Path:
    """Write one checkpoint so that it appears whole, or not at all.

    Args:
        run: the run folder.
        step: number of the step, which names the checkpoint. What lies under that name already
            was rejected when the run was resumed, and gives way.
        tensors: groups of tensors by name; each becomes a file.
        state: plain values.

    Raises:
        ResourceError: the disk refused; the checkpoints before this one are untouched.
    """
    target = run / "checkpoints" / f"step-{step:08d}"
    temporary = target.with_name(f".tmp-{target.name}-{os.getpid()}-{secrets.token_hex(4)}")
    sizes = [t.numel() * t.element_size() for group in tensors.values() for t in group.values()]
    needed = sum(sizes) + OVERHEAD_BYTES
    what, then = "could not save the checkpoint", "earlier ones are untouched: free some space"
    try:
        _make_folder(target.parent)
        _refuse_a_full_disk(target.parent, needed)
        os.mkdir(temporary)
        _write_members(temporary, target.name, tensors, state)
        flush(temporary)
        if target.exists():
            _discard(target)
        os.rename(temporary, target)
        what, then = (
            "the disk does not confirm the checkpoint",
            "it may be gone after a power loss",
        )
        flush(target.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            size, remedy = f"{needed:,} bytes needed", f"{then}, then use --resume"
            raise not_written(what, target, size, error, remedy) from error
        raise
    return target


def _make_folder(folder: Path) -> None:
    """Make the folder of checkpoints, and flush the entries that lead to it."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        flush(folder.parent)
        flush(folder.parent.parent)


def _refuse_a_full_disk(folder: Path, needed: int) -> None:
    """Say so before half a checkpoint is written; some file systems do not know their size."""
    usage = shutil.disk_usage(folder)
    if usage.total > 0 and usage.free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _write_members(folder: Path, name: str, tensors: Groups, state: Mapping[str, Any]) -> None:
    """Write the files of a checkpoint called ``name`` one by one, the manifest last."""
    files = {}
    for group_name, group in tensors.items():
        member = f"{group_name}.safetensors"
        files[member] = write_flushed(folder / member, pieces_of(group))
    text = json.dumps(dict(state), allow_nan=False)
    files["state.json"] = write_flushed(folder / "state.json", [text.encode()])
    body: dict[str, Any] = {"format_version": FORMAT_VERSION, "name": name, "files": files}
    signed = json.dumps({**body, "sha256": _digest(body)}, indent=1)
    write_flushed(folder / MANIFEST, [signed.encode()])


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def load_newest(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest good checkpoint of a run, and a sentence for each that was rejected.

    Returns:
        (None, []) where the run has no checkpoint yet.

    Raises:
        CheckpointError: checkpoints exist and all of them are bad.
        InputError: the newest was written by a newer version of the library.
    """
    rejected: list[str] = []
    for path in checkpoints_of(run):
        try:
            return _verified(path), rejected
        except CheckpointError as error:
            rejected.append(str(error))
    if rejected:
        raise CheckpointError(
            f"no checkpoint of '{printable(run)}' can be used: {'; '.join(rejected)}"
        )
    return None, []


def _verified(path: Path) -> Checkpoint:
    """Read a checkpoint, believing no byte that the manifest does not vouch for."""
    files = _manifest(path)
    state: dict[str, Any] = {}
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, known in files.items():
        content = _read(path, name)
        if known != {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}:
            raise _damaged(path, f"{printable(name)} is not what was written")
        try:
            if name == "state.json":
                state = json.loads(content)
            else:
                tensors[name.removesuffix(".safetensors")] = load(content)
        except (ValueError, RecursionError, SafetensorError) as error:
            raise _damaged(path, f"{printable(name)} cannot be read ({error})") from error
    return Checkpoint(path, tensors, state)


def _manifest(path: Path) -> dict[str, Any]:
    """What the manifest says of each file, once it has vouched for itself and for the folder."""
    try:
        body = json.loads(_read(path, MANIFEST))
        claimed, files = body.pop("sha256"), dict(body["files"])
        present = set(os.listdir(path))
        whole = (body["name"], present) == (path.name, {*files, MANIFEST})
        sound = claimed == _digest(body) and whole and "state.json" in files
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"{MANIFEST} cannot be read ({printable(error)})") from error
    if not sound:
        raise _damaged(path, f"{MANIFEST} does not match the folder")
    check_format_version(body, path / MANIFEST)
    return files


def _read(path: Path, name: str) -> bytes:
    """The bytes of a member, which must be a plain file in a plain folder."""
    member = path / name
    if path.is_symlink() or member.is_symlink():
        raise _damaged(path, f"{printable(name)} is not a plain file")
    try:
        return member.read_bytes()
    except OSError as error:
        raise _damaged(path, f"{printable(name)} cannot be read ({error.strerror})") from error


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"'{printable(path.name)}' is damaged: {reason}")


def prune(run: Path, step: int, best_step: int | None) -> None:
    """Keep the checkpoint of ``step``, the two before it and the best.

    Called once that checkpoint is committed. What lies beyond it was rejected when the run was
    resumed, and goes too: else damaged checkpoints would count among the last three. What cannot
    be removed now is tried again after the next save.
    """
    found = checkpoints_of(run)
    beyond = [path for path in found if _step_of(path) > step]
    older = [path for path in found if _step_of(path) <= step][KEEP_LAST:]
    for path in beyond + [path for path in older if _step_of(path) != best_step]:
        with contextlib.suppress(OSError):
            _discard(path)


def sweep(run: Path) -> None:
    """Remove what a crash left half written or half deleted; needs the lock."""
    for pattern in (".tmp-*", ".trash-*"):
        for path in (run / "checkpoints").glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
    for path in run.glob(".tmp-*"):  # of `atomic_output`
        with contextlib.suppress(OSError):
            path.unlink()


def _discard(path: Path) -> None:
    # Renamed first: a folder that is half deleted must not look like a checkpoint.
    trash = path.with_name(f".trash-{path.name}-{secrets.token_hex(4)}")
    os.rename(path, trash)
    shutil.rmtree(trash, ignore_errors=True)


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]
) -> dict[str, Tensor]:
    """An optimiser's state as ``NAME/field`` tensors, keyed by parameter name."""
    return {
        f"{name}/{field}": whole(value)
        for parameter, name in names.items()  # in the same order everywhere: parts are gathered
        for field, value in sorted(optimizer.state.get(parameter, {}).items())
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str], tensors: Mapping[str, Tensor]
) -> None:
    """Fill an optimiser's state from `optimizer_tensors`."""
    by_name = {name: parameter for parameter, name in names.items()}
    for key, value in tensors.items():
        name, _, field = key.rpartition("/")
        parameter = by_name[name]
        # The step counters of fused optimisers live beside their parameters.
        optimizer.state[parameter][field] = like(value, parameter.detach())
