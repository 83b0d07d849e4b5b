"""Checkpoints that are whole or absent.

    checkpoints/step-00001200/   appears only by rename from .tmp-…
        model.safetensors  average.safetensors  optimizer.safetensors   tensors
        state.json                                                      every scalar
        MANIFEST.json   written last: size and SHA-256 of each file, and of itself

A reader trusts nothing but the manifest: it verifies every byte, newest first, says which
checkpoints it had to reject, and falls back. The order of writing (files, flush, manifest, flush,
rename, flush the parent) is what makes a crash at any point leave the old state or the new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lowerbound.errors import (
    CheckpointError,
    InputError,
    LowerboundError,
    ResourceError,
    printable,
    refuse,
)
from lowerbound.files import FORMAT_VERSION, check_format_version, fsync_folder

__all__ = [
    "Checkpoint",
    "RunLock",
    "checkpoints_of",
    "load_newest",
    "prune",
    "save_checkpoint",
    "sweep",
]

KEEP_LAST = 3
MANIFEST = "MANIFEST.json"
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


def checkpoints_of(run: Path) -> list[Path]:
    """The committed checkpoints of a run, newest first."""
    return sorted((run / "checkpoints").glob("step-*"), reverse=True)


def save_checkpoint(run: Path, step: int, tensors: Groups, state: Mapping[str, Any]) -> Path:
    """Write one checkpoint so that it appears whole, or not at all.

    Raises:
        ResourceError: the disk refused; the checkpoints before this one are untouched.
    """
    parent = run / "checkpoints"
    target = parent / f"step-{step:08d}"
    temporary = parent / f".tmp-{target.name}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        temporary.mkdir(parents=True)
        contents = {f"{name}.safetensors": _to_bytes(group) for name, group in tensors.items()}
        contents["state.json"] = json.dumps(dict(state), allow_nan=False).encode()
        for name, content in contents.items():
            _write(temporary / name, content)
        _write(temporary / MANIFEST, _manifest(contents))
        fsync_folder(temporary)
        if target.exists():  # the same step, saved twice: the older copy gives way
            _discard(target)
        os.rename(temporary, target)
        fsync_folder(parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise ResourceError(
            f"could not save the checkpoint '{printable(target)}': {error.strerror or error}; "
            "earlier checkpoints are untouched: free some space, then use --resume"
        ) from error
    return target


def _to_bytes(group: Mapping[str, Tensor]) -> bytes:
    cpu = {name: t.detach().cpu().contiguous() for name, t in group.items()}
    return save(cpu)


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _manifest(contents: Mapping[str, bytes]) -> bytes:
    files = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    body: dict[str, Any] = {"format_version": FORMAT_VERSION, "files": files}
    return json.dumps({**body, "sha256": _digest(body)}, indent=1).encode()


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def load_newest(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest good checkpoint of a run, and a sentence for each that was rejected.

    Returns:
        (None, []) where the run has no checkpoint yet.

    Raises:
        CheckpointError: checkpoints exist and all of them are bad.
    """
    rejected: list[str] = []
    for path in checkpoints_of(run):
        try:
            return _verified(path), rejected
        except InputError:
            raise
        except LowerboundError as error:
            rejected.append(str(error))
    if rejected:
        raise CheckpointError(
            f"no checkpoint of '{printable(run)}' can be used: {'; '.join(rejected)}"
        )
    return None, []


def _verified(path: Path) -> Checkpoint:
    """Read a checkpoint, believing no byte that the manifest does not vouch for."""

    def bad(reason: str) -> CheckpointError:
        return CheckpointError(f"'{printable(path.name)}' is damaged: {reason}")

    try:
        body = json.loads((path / MANIFEST).read_bytes())
        claimed = body.pop("sha256")
        files = body["files"]
        sound = claimed == _digest(body) and set(os.listdir(path)) == {*files, MANIFEST}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise bad(f"{MANIFEST} cannot be read ({printable(error)})") from error
    if not sound:
        raise bad(f"{MANIFEST} does not match the folder")
    check_format_version(body, path / MANIFEST)
    contents: dict[str, bytes] = {}
    for name, known in files.items():
        member = path / name
        if Path(name).name != name or member.is_symlink() or not member.is_file():
            raise bad(f"{printable(name)} is not a plain file")
        content = member.read_bytes()
        if len(content) != known["size"] or hashlib.sha256(content).hexdigest() != known["sha256"]:
            raise bad(f"{printable(name)} is not what was written")
        contents[name] = content
    try:
        state = json.loads(contents.pop("state.json"))
        tensors = {name.removesuffix(".safetensors"): load(c) for name, c in contents.items()}
    except (KeyError, ValueError, SafetensorError) as error:
        raise bad(printable(error)) from error
    return Checkpoint(path, tensors, state)


def prune(run: Path, best_step: int | None) -> None:
    """Keep the last three checkpoints and the best; called once a newer one is committed."""
    for path in checkpoints_of(run)[KEEP_LAST:]:
        if path.name != f"step-{best_step or 0:08d}":
            _discard(path)


def sweep(run: Path) -> None:
    """Remove what a crash left half written or half deleted; needs the lock."""
    for pattern in (".tmp-*", ".trash-*"):
        for path in (run / "checkpoints").glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


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
        f"{names[parameter]}/{field}": value
        for parameter, fields in optimizer.state.items()
        for field, value in fields.items()
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
        optimizer.state[parameter][field] = value.to(parameter.device)
