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
from lowerbound.errors import refuse

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DecodeFlags", "EncodeFlags", "decode", "encode"]


@dataclass(frozen=True)
class EncodeFlags(OfRun):
    """Examples to latents: posterior means z and standard deviations sigma."""

    data: str | None = None
    """What to encode, every row in its order; the run's own data unless said."""
    out: Path | None = None
    """X.npz with z and sigma, or X.csv with columns z_1 … sigma_d; RUN/latents.npz unless said."""


def encode(flags: EncodeFlags) -> None:
    """``lowerbound encode``."""
    import torch

    out = output(flags.out, named(flags, "latents", ".npz"), (".npz", ".csv"))
    model, x = model_of(flags), rows_for(flags, flags.data)
    with torch.no_grad():
        posteriors = [model.encode(part.to(model.calibrated.device)) for part in x.split(1000)]
    z = torch.cat([q.mean for q in posteriors])
    scales = torch.cat([q.log_scale.exp().expand_as(q.mean) for q in posteriors])  # type: ignore[attr-defined]
    if out.suffix == ".csv":
        save_table(out, [f"{n}_{i}" for n in ("z", "sigma") for i in _indices(z)], z, scales)
    else:
        save_arrays(out, z=z, sigma=scales)
    print(out)


def _indices(z: Tensor) -> range:
    """1 … d, of latents (N, d)."""
    return range(1, z.shape[1] + 1)


@dataclass(frozen=True)
class DecodeFlags(OfRun):
    """Latents to examples: means of p(x|z)."""

    latents: Path | None = None
    """X.npz with latents (N, d) under z, or X.csv with columns z_1 … z_d; RUN/latents.npz unless
    said."""
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

    out = output(flags.out, named(flags, "decoded", ".npz"), (".npz", ".csv"))
    model = model_of(flags)
    check_ending(out, model)
    device = model.calibrated.device
    d = model.encode(torch.zeros(1, *model.event_shape, device=device)).mean.shape[1]
    z = _latents(flags.latents or flags.run / "latents.npz", d)
    parts = []
    with torch.no_grad():
        for i, part in enumerate(z.float().split(1000)):
            p = model.decode(part.to(device))
            generator = generator_for("decode", flags.seed, i, device=device)
            parts.append(p.sample(generator) if flags.draw else p.mean)
    x = torch.cat(parts)
    if out.suffix == ".csv":
        save_table(out, column_names_of(flags, x.shape[1]), x)
    else:
        save_arrays(out, x=x)
    print(out)


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
