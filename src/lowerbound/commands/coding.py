"""The commands that go to the latents and back: encode, decode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lowerbound.commands.shared import (
    OfRun,
    check_ending,
    column_names_of,
    model_of,
    named,
    output,
    rows_for,
    save_arrays,
    save_table,
)
from lowerbound.errors import InputError, refuse

if TYPE_CHECKING:
    from torch import Tensor

    from lowerbound.models import Model

__all__ = ["DecodeFlags", "EncodeFlags", "decode", "encode"]


@dataclass(frozen=True)
class EncodeFlags(OfRun):
    """Examples to latents: posterior means z and standard deviations sigma."""

    data: str | None = None
    """What to encode, every row in its order; the run's own data unless said."""
    out: Path | None = None
    """X.npz with z and sigma, or X.csv with columns z_1 … sigma_d, and the context of a
    conditional model; RUN/latents.npz unless said."""


def encode(flags: EncodeFlags) -> None:
    """``lowerbound encode``."""
    import torch

    out = output(flags.out, named(flags, "latents", ".npz"), (".npz", ".csv"))
    model = model_of(flags)
    _check_encoder(model)
    x, context = rows_for(flags, flags.data)
    given = [None] * len(x) if context is None else context.split(1000)
    with torch.no_grad():
        posteriors = [
            model.encode(part.to(model.calibrated.device), c)
            for part, c in zip(x.split(1000), given, strict=False)
        ]
    z = torch.cat([q.mean for q in posteriors])
    scales = torch.cat([q.stddev for q in posteriors])  # type: ignore[attr-defined]
    beside = {} if context is None else {"context": context}
    if out.suffix == ".csv":
        names = [f"{n}_{i}" for n in ("z", "sigma") for i in _indices(z)]
        classes = {k: c for k, c in beside.items() if c.ndim == 1}  # others are no column
        save_table(out, [*names, *classes], z, scales, *classes.values())
    else:
        save_arrays(out, z=z, sigma=scales, **beside)
    print(out)


def _check_encoder(model: Model) -> None:
    """Refuse a model without q(z|x) before any work, with what it has in its place.

    Raises:
        InputError: the model has no encoder.
    """
    from lowerbound.models import DenoisingModel

    if model.has_encoder:
        return
    remedy = "train one that has latents, such as vae"
    if isinstance(model, DenoisingModel):
        remedy = "use `reconstruct --noise-level` or `interpolate`, which go through its noisy z"
    raise InputError(f"a model of kind '{model.name}' has no encoder; {remedy}")


def _indices(z: Tensor) -> range:
    """1 … d, of latents (N, d)."""
    return range(1, z.shape[1] + 1)


@dataclass(frozen=True)
class DecodeFlags(OfRun):
    """Latents to examples: means of p(x|z)."""

    latents: Path | None = None
    """X.npz with latents (N, d) under z, or X.csv with columns z_1 … z_d; RUN/latents.npz unless
    said."""
    label: str | None = None
    """Class to decode as, for a model of classes; that of the file unless said."""
    draw: bool = False
    """Draws from p(x|z) in place of its means."""
    seed: int = 0
    """Of the draws."""
    out: Path | None = None
    """X.npz with the examples under x, or X.csv of a table; RUN/decoded.npz unless said."""


def decode(flags: DecodeFlags) -> None:
    """``lowerbound decode``."""
    import torch

    from lowerbound._random import generator_for
    from lowerbound.generation import class_context

    out = output(flags.out, named(flags, "decoded", ".npz"), (".npz", ".csv"))
    model = model_of(flags)
    check_ending(out, model)
    class_context(model, flags.label, 1)  # refused before any work
    device = model.calibrated.device
    d = _num_latents(model)
    path = flags.latents or flags.run / "latents.npz"
    z = _latents(path, d)
    context, parts = _context(model, path, flags.label, len(z)), []
    with torch.no_grad():
        for i, part in enumerate(z.float().split(1000)):
            given = None if context is None else context[1000 * i : 1000 * (i + 1)]
            p = model.decode(part.to(device), given)
            generator = generator_for("decode", flags.seed, i, device=device)
            parts.append(p.sample(generator) if flags.draw else p.mean)
    x = torch.cat(parts)
    if out.suffix == ".csv":
        save_table(out, column_names_of(flags, x.shape[1]), x)
    else:
        save_arrays(out, x=x)
    print(out)


def _num_latents(model: Model) -> int:
    """Numbers per example that `encode` gives."""
    import torch

    from lowerbound.data import Classes

    x, given = torch.zeros(1, *model.event_shape, device=model.calibrated.device), None
    if isinstance(model.context, Classes):
        given = torch.zeros(1, dtype=torch.int64)  # any class, since one that is none is refused
    elif model.context is not None:
        given = model.context.unknown(1, model.event_shape)
    return int(model.encode(x, given).mean.shape[1])


def _latents(path: Path, d: int) -> Tensor:
    """The latents (N, d) of a file that `encode` wrote, or of one like it.

    Raises:
        InputError: no such file, or other latents in it.
    """
    from lowerbound.data import load_rows

    if path.suffix != ".csv":
        z = load_rows(f"{path}:z", support="real").x
        if z.ndim != 2 or z.shape[1] != d:
            raise refuse(path, f"latents (N, {d}) under z", f"{tuple(z.shape)}")
        return z
    rows = load_rows(path, support="real")
    wanted = [f"z_{i}" for i in range(1, d + 1)]
    found = [name for name in rows.column_names if name.startswith("z_")]
    if sorted(found) != sorted(wanted):
        given = ", ".join(found) or ", ".join(rows.column_names)
        raise refuse(path, f"a table with the columns z_1 … z_{d}", given)
    return rows.x[:, [rows.column_names.index(name) for name in wanted]]


def _context(model: Model, path: Path, label: str | None, num: int) -> Tensor | None:
    """What latents are decoded with: the class that is named, or what `encode` wrote beside them.

    Raises:
        InputError: neither, or a class never seen.
    """
    import zipfile

    import torch

    from lowerbound.data import load_rows
    from lowerbound.data.arrays import archive_members, member_array
    from lowerbound.generation import class_context

    given = class_context(model, label, num)
    if given is not None or model.context is None:
        return given
    if path.suffix == ".csv":
        rows = load_rows(path, support="real")
        if "context" in rows.column_names:
            given = rows.x[:, rows.column_names.index("context")].long()
    else:
        with zipfile.ZipFile(path) as archive:
            members = archive_members(archive, path)
            if "context" in members:
                array = member_array(archive, members["context"], f"{path}:context", path)
                given = torch.from_numpy(array.copy())
    if given is None or len(given) != num:
        found = "none" if given is None else len(given)
        remedy = "say --label, or encode the examples again"
        raise refuse(f"{path}:context", f"one for each of {num} latents", found, remedy)
    model.context.check(given, model.event_shape)
    return given
