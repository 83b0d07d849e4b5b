"""The commands: flags as dataclasses, deeds as functions that call the library.

Results go to standard output, everything else to standard error; ``--json`` prints one JSON object
and nothing beside it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from lowerbound.config import RunConfig
from lowerbound.errors import InputError, printable, refuse
from lowerbound.tables import evaluation_table, print_json, print_table

__all__ = ["COMMANDS", "Command", "TrainFlags"]

if TYPE_CHECKING:
    from torch import Tensor

    from lowerbound.data import Source
    from lowerbound.models import Model

Run = tyro.conf.Positional[Path]


@dataclass(frozen=True)
class TrainFlags(RunConfig):
    """Train a model, judge it on the test split and draw what it makes.

    Add --model NAME to see the model's own flags. A run folder repeats, continues and judges.
    """

    data: tyro.conf.Positional[str] = "digits"
    """digits, mnist:DIR, fashion-mnist:DIR, folder:DIR, x.npz[:key], x.npy or t.csv."""
    options: tyro.conf.Suppress[Any] = None
    out: Path | None = None
    """Run folder; runs/DATA-MODEL-N unless said."""
    config: Path | None = None
    """A config.yaml to start from; flags override it."""
    resume: str | None = None
    """Continue a run: its folder, or auto for the newest unfinished one under runs/."""
    overwrite: bool = False
    """Replace an earlier run in --out."""
    quiet: bool = False
    """No progress."""
    debug: bool = False
    """Show where an error came from."""


def train(flags: Any) -> int:
    """``lowerbound train``."""
    from lowerbound import run

    if flags.resume is not None:
        done = run.resume(Path(flags.resume), quiet=flags.quiet)
    else:
        values = {f.name: getattr(flags, f.name) for f in dataclasses.fields(RunConfig)}
        options = values.pop("options")
        config = RunConfig(**values, options=dataclasses.asdict(options))
        done = run.train(config, flags.out, overwrite=flags.overwrite, quiet=flags.quiet)
    if not flags.quiet:
        assert done.evaluation is not None
        print_table(evaluation_table(done.evaluation))
        print(f"\nrun folder   {done.folder}\nreport       {done.folder}/report.html")
        print(f"next         lowerbound sample {done.folder} --num 64")
    return 0


@dataclass(frozen=True)
class OfRun:
    """Flags of every command that uses a run."""

    run: Run
    """Folder of a run."""
    device: str = "auto"
    """cpu, cuda, …; auto is the first accelerator there is."""
    debug: bool = False
    """Show where an error came from."""


@dataclass(frozen=True)
class EvaluateFlags(OfRun):
    """Judge a run: the bound and its terms, the log-likelihood, and what stands beside them."""

    data: str | None = None
    """Other data than the run's, prepared in the same way."""
    split: Literal["test", "validation", "train"] = "test"
    """Which split is judged."""
    samples: int = 1000
    """Importance samples K per example."""
    json: bool = False
    """Print one JSON object."""


def evaluate(flags: EvaluateFlags) -> None:
    """``lowerbound evaluate``."""
    from lowerbound.evaluation import evaluate as judge

    if flags.samples < 1:
        raise refuse("samples", "at least 1", flags.samples)
    model, source = _model(flags), _source(flags, flags.data)
    result = judge(model, source, split=flags.split, num_samples=flags.samples)
    if flags.json:
        print_json(result)
    else:
        print_table(evaluation_table(result))


@dataclass(frozen=True)
class SampleFlags(OfRun):
    """Draw from p(x)."""

    num: int = 64
    """How many."""
    label: str | None = None
    """Class to draw, for a conditional model."""
    seed: int = 0
    """Same seed, same draws."""
    mean: bool = False
    """Means of p(x|z) in place of draws from it."""
    out: Path | None = None
    """X.png for a picture, X.npz for an array under x; RUN/samples-seed-S.png unless said."""


def sample(flags: SampleFlags) -> None:
    """``lowerbound sample``."""
    from lowerbound import plots
    from lowerbound.generation import draw

    out = _out(flags.out, flags.run / f"samples-seed-{flags.seed}.png", (".png", ".npz"))
    if flags.label is not None:
        raise refuse("label", "left out for a model that is not conditional", flags.label)
    model = _model(flags)
    x = draw(model, flags.num, seed=flags.seed, mean=flags.mean)
    if out.suffix == ".npz":
        _save_arrays(out, x=x)
    elif len(model.event_shape) == 3:
        source = None if str(model.support) != "real" else _source(flags, None)
        reference = x if source is None else source.train[slice(0, 1000)][0]
        pixels = plots.displayable(
            x, model.support, float(reference.min()), float(reference.max())
        )
        _save_png(out, plots.image_grid(pixels, max(1, round(flags.num**0.5))))
    else:
        source = _source(flags, None)
        train = source.train[slice(0, 5000)][0]
        figure = plots.samples_figure(
            x, None, model.support, model.event_shape, train, source.column_names
        )
        plots.save_figure(figure, out)
    print(out)


@dataclass(frozen=True)
class ReconstructFlags(OfRun):
    """Examples beside the means of p(x|z) at their latents."""

    data: str | None = None
    """Other data than the run's."""
    split: Literal["test", "validation", "train"] = "test"
    """Which split the examples come from."""
    num: int = 20
    """How many."""
    out: Path | None = None
    """X.png, or X.npz with x and reconstructions; RUN/reconstructed.png unless said."""


def reconstruct(flags: ReconstructFlags) -> None:
    """``lowerbound reconstruct``."""
    from lowerbound import plots
    from lowerbound.generation import reconstruct as decode_encoded

    out = _out(flags.out, flags.run / "reconstructed.png", (".png", ".npz"))
    model, source = _model(flags), _source(flags, flags.data)
    x = _first(source, flags.split, flags.num)
    model.check(x, source.name)
    means = decode_encoded(model, x)
    if out.suffix == ".npz":
        _save_arrays(out, x=x, reconstructions=means)
    else:
        figure = plots.reconstructions_figure(x, means, model.support, source.column_names)
        plots.save_figure(figure, out)
    print(out)


@dataclass(frozen=True)
class InterpolateFlags(OfRun):
    """Walk in straight lines between the latents of test examples."""

    data: str | None = None
    """Other data than the run's."""
    num: int = 6
    """How many walks."""
    steps: int = 10
    """Points per walk, both ends included."""
    out: Path | None = None
    """X.png, or X.npz with x (walks, steps, …); RUN/interpolated.png unless said."""


def interpolate(flags: InterpolateFlags) -> None:
    """``lowerbound interpolate``."""
    from lowerbound import plots
    from lowerbound.generation import interpolate as walk

    out = _out(flags.out, flags.run / "interpolated.png", (".png", ".npz"))
    if flags.steps < 2:
        raise refuse("steps", "at least 2", flags.steps)
    model, source = _model(flags), _source(flags, flags.data)
    x = _first(source, "test", 2 * flags.num)
    model.check(x, source.name)
    half = len(x) // 2
    frames = walk(model, x[:half], x[half : 2 * half], flags.steps)
    if out.suffix == ".npz":
        _save_arrays(out, x=frames)
    else:
        figure = plots.interpolations_figure(frames, model.support, source.column_names)
        plots.save_figure(figure, out)
    print(out)


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

    out = _out(flags.out, flags.out, (".npz",))
    model, x = _model(flags), _rows(flags, flags.data)
    with torch.no_grad():
        posteriors = [model.encode(part.to(model.calibrated.device)) for part in x.split(1000)]
    z = torch.cat([q.mean for q in posteriors])
    scales = torch.cat([q.log_scale.exp().expand_as(q.mean) for q in posteriors])  # type: ignore[attr-defined]
    _save_arrays(out, z=z, sigma=scales)
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

    out = _out(flags.out, flags.out, (".npz",))
    model = _model(flags)
    z = load_rows(f"{flags.latents}:z", support="real").x
    d = getattr(model, "latent_dim", None)
    if z.ndim != 2 or z.shape[1] != d:
        raise refuse(flags.latents, f"latents (N, {d}) under z", f"{tuple(z.shape)}")
    parts = []
    device = model.calibrated.device
    with torch.no_grad():
        for i, part in enumerate(z.float().split(1000)):
            p = model.decode(part.to(device))
            generator = generator_for("decode", flags.seed, i, device=device)
            parts.append(p.sample(generator) if flags.draw else p.mean)
    _save_arrays(out, x=torch.cat(parts))
    print(out)


@dataclass(frozen=True)
class ScoreFlags(OfRun):
    """The bound of each example in nats and in bits/dim, as a CSV table in the data's order."""

    data: str | None = None
    """What to score, every row in its order; the run's own data unless said."""
    samples: int = 16
    """Monte Carlo samples per example."""
    out: Path = Path("scores.csv")
    """A .csv file with the columns index, bound and bits_per_dim."""


def score(flags: ScoreFlags) -> None:
    """``lowerbound score``."""
    from lowerbound.evaluation.judging import scores
    from lowerbound.files import save_text

    out = _out(flags.out, flags.out, (".csv",))
    if flags.samples < 1:
        raise refuse("samples", "at least 1", flags.samples)
    model, x = _model(flags), _rows(flags, flags.data)
    bound, bits = scores(model, x, flags.samples)
    rows = zip(bound.tolist(), bits.tolist(), strict=True)
    text = "".join(f"{i},{b:.6f},{d:.8f}\n" for i, (b, d) in enumerate(rows))
    save_text(out, "index,bound,bits_per_dim\n" + text)
    print(out)


@dataclass(frozen=True)
class CompareFlags:
    """Runs beside one another, best bound first."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs."""
    json: bool = False
    """Print one JSON object."""
    debug: bool = False
    """Show where an error came from."""


def compare(flags: CompareFlags) -> None:
    """``lowerbound compare``."""
    from lowerbound.files import check_format_version, load_json
    from lowerbound.tables import comparison_table

    if not flags.runs:
        raise refuse("runs", "at least one run folder", "none")
    found = []
    for run in flags.runs:
        path = run / "evaluation.json"
        if not path.is_file():
            raise InputError(
                f"'{printable(run)}' has no evaluation.json; give the folder of a finished run"
            )
        document = load_json(path)
        check_format_version(document, path)
        found.append({"run": str(run), **document})
    found.sort(key=lambda r: -(r["bound"] or {}).get("value", float("-inf")))
    same = {(r["data"], r["split"], r["num_examples"]) for r in found}
    if len(same) > 1:
        print(
            "warning: the runs were judged on different data; their nats do not compare",
            file=sys.stderr,
        )
    if flags.json:
        print_json({"runs": found, "comparable": len(same) == 1})
    else:
        print_table(comparison_table(found))


@dataclass(frozen=True)
class ModelsFlags:
    """The models there are."""

    json: bool = False
    """Print a JSON list."""
    debug: bool = False
    """Show where an error came from."""


def models(flags: ModelsFlags) -> None:
    """``lowerbound models``."""
    from lowerbound.build import MODELS

    keys = ("summary", "reference", "nats", "is_likelihood", "samples", "conditional")
    rows = [{"name": n} | {k: getattr(e, k) for k in keys} for n, e in MODELS.items()]
    if flags.json:
        print_json(rows)
        return
    nats = [(r["name"], r["summary"], r["reference"], r["nats"]) for r in rows]
    print_table(
        [
            ("model", "what it is", "reference", "test nats, binarised MNIST"),
            *((n, s, ref, "" if v is None else f"{v:.2f}") for n, s, ref, v in nats),
        ]
    )


@dataclass(frozen=True)
class DatasetsFlags:
    """How data are named."""

    json: bool = False
    """Print a JSON list."""
    debug: bool = False
    """Show where an error came from."""


def datasets(flags: DatasetsFlags) -> None:
    """``lowerbound datasets``."""
    from lowerbound.data import DATASETS

    if flags.json:
        print_json([dict(zip(("name", "form", "summary"), row, strict=True)) for row in DATASETS])
    else:
        print_table([("data", "how to name it", "what it is"), *DATASETS])


@dataclass(frozen=True)
class DoctorFlags:
    """What this machine has, and whether a model can be trained on it."""

    json: bool = False
    """Print one JSON object."""
    debug: bool = False
    """Show where an error came from."""


def doctor(flags: DoctorFlags) -> int:
    """``lowerbound doctor``."""
    from lowerbound.doctor import examine

    facts = examine()
    if flags.json:
        print_json(facts)
    else:
        print_table([("what", "found"), *((k, str(v)) for k, v in facts.items())])
    return 0 if facts["verdict"] == "ready" else 1


@dataclass(frozen=True)
class CompletionFlags:
    """Print a completion script; e.g. eval "$(lowerbound completion bash)"."""

    shell: tyro.conf.Positional[Literal["bash", "zsh", "tcsh"]] = "bash"
    """Which shell."""
    debug: bool = False
    """Show where an error came from."""


def completion(flags: CompletionFlags) -> None:
    """``lowerbound completion``."""
    everything: dict[str, Any] = {name: command.flags for name, command in COMMANDS.items()}
    tyro.extras.subcommand_cli_from_dict(
        everything,
        prog="lowerbound",
        args=["--tyro-print-completion", flags.shell],
        config=(tyro.conf.FlagCreatePairsOff,),
    )


@dataclass(frozen=True)
class Command:
    """A verb: its flags, what it does with them, and a sentence."""

    flags: type[Any]
    run: Callable[[Any], int | None]
    summary: str


COMMANDS: dict[str, Command] = {
    "train": Command(TrainFlags, train, "train a model, judge it, draw it: a run with a report"),
    "evaluate": Command(EvaluateFlags, evaluate, "bound, log-likelihood, what stands beside them"),
    "sample": Command(SampleFlags, sample, "draw from p(x) into a picture or an array"),
    "reconstruct": Command(ReconstructFlags, reconstruct, "examples beside their reconstructions"),
    "interpolate": Command(InterpolateFlags, interpolate, "walk between examples' latents"),
    "encode": Command(EncodeFlags, encode, "examples to latents"),
    "decode": Command(DecodeFlags, decode, "latents to examples"),
    "score": Command(ScoreFlags, score, "the bound of each example, as a table"),
    "compare": Command(CompareFlags, compare, "runs beside one another"),
    "models": Command(ModelsFlags, models, "the models there are"),
    "datasets": Command(DatasetsFlags, datasets, "how data are named"),
    "doctor": Command(DoctorFlags, doctor, "what this machine has"),
    "completion": Command(CompletionFlags, completion, "completion script for bash, zsh or tcsh"),
}
"""Every command by its name."""


# --- what the commands share ------------------------------------------------------------------


def _model(flags: OfRun) -> Model:
    from lowerbound.build import load_model
    from lowerbound.training.step import resolve_device

    return load_model(flags.run).to(resolve_device(flags.device))


def _source(flags: OfRun, data: str | None) -> Source:
    from lowerbound.run import run_config, source_of

    return source_of(run_config(flags.run), data)


def _rows(flags: OfRun, data: str | None) -> Tensor:
    """Every example of the data in its order, prepared as for the run, checked by its model."""
    from lowerbound.run import rows_of, run_config

    rows = rows_of(run_config(flags.run), data)
    _model(flags).check(rows.x, rows.name)
    return rows.x


def _first(source: Source, split: str, num: int) -> Tensor:
    if num < 1:
        raise refuse("num", "at least 1", num)
    return source.split(split)[slice(0, num)][0]


def _out(given: Path | None, default: Path, endings: tuple[str, ...]) -> Path:
    """Where the result goes; refused before any work where its ending says nothing."""
    out = given or default
    if out.suffix not in endings:
        raise refuse("out", f"a file ending in {' or '.join(endings)}", out)
    if out.is_dir():
        raise refuse("out", "a file", f"the folder {out}")
    return out


def _save_arrays(path: Path, **tensors: Tensor) -> None:
    import numpy as np

    from lowerbound.files import atomic_output

    with atomic_output(path) as temporary:
        np.savez_compressed(temporary, **{name: t.cpu().numpy() for name, t in tensors.items()})  # type: ignore[arg-type]


def _save_png(path: Path, pixels: Any) -> None:
    from PIL import Image

    from lowerbound.files import atomic_output

    with atomic_output(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
