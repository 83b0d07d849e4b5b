"""The commands that go to the latents and back: encode, decode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lowerbound.commands.shared import OfRun, model_of, output, rows_for, save_arrays
from lowerbound.errors import refuse

__all__ = ["DecodeFlags", "EncodeFlags", "decode", "encode"]


@dataclass(frozen=True)
class EncodeFlags(OfRun):
    """Examples to latents: posterior means under z, standard deviations under sigma."""

    data: str | None = None
    """What to encode, every row in its order; the run's own data unless said."""
    out: Path = Path("latents.npz")
    """An .npz file."""


def encode(flags: EncodeFlags) -> None:
    """``lowerbound encode``."""
    import torch

    out = output(flags.out, flags.out, (".npz",))
    model, x = model_of(flags), rows_for(flags, flags.data)
    with torch.no_grad():
        posteriors = [model.encode(part.to(model.calibrated.device)) for part in x.split(1000)]
    z = torch.cat([q.mean for q in posteriors])
    scales = torch.cat([q.log_scale.exp().expand_as(q.mean) for q in posteriors])  # type: ignore[attr-defined]
    save_arrays(out, z=z, sigma=scales)
    print(out)


@dataclass(frozen=True)
class DecodeFlags(OfRun):
    """Latents to examples: means of p(x|z)."""

    latents: Path = Path("latents.npz")
    """An .npz file with latents (N, d) under z."""
    draw: bool = False
    """Draws from p(x|z) in place of its means."""
    seed: int = 0
    """Of the draws."""
    out: Path = Path("decoded.npz")
    """An .npz file; the examples are under x."""


def decode(flags: DecodeFlags) -> None:
    """``lowerbound decode``."""
    import torch

    from lowerbound._random import generator_for
    from lowerbound.data import load_rows

    out = output(flags.out, flags.out, (".npz",))
    model = model_of(flags)
    z = load_rows(f"{flags.latents}:z", support="real").x
    blank = torch.zeros(1, *model.event_shape, device=model.calibrated.device)
    d = model.encode(blank).mean.shape[1]
    if z.ndim != 2 or z.shape[1] != d:
        raise refuse(flags.latents, f"latents (N, {d}) under z", f"{tuple(z.shape)}")
    parts = []
    device = model.calibrated.device
    with torch.no_grad():
        for i, part in enumerate(z.float().split(1000)):
            p = model.decode(part.to(device))
            generator = generator_for("decode", flags.seed, i, device=device)
            parts.append(p.sample(generator) if flags.draw else p.mean)
    save_arrays(out, x=torch.cat(parts))
    print(out)
