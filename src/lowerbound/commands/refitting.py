"""``lowerbound refit``: another prior for a model that is trained already."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lowerbound.commands.shared import OfRun, data_of, model_of
from lowerbound.tables import evaluation_table, print_table

if TYPE_CHECKING:
    from lowerbound.config import RunConfig
    from lowerbound.data import Source
    from lowerbound.training.refit import PriorFit

__all__ = ["RefitFlags", "refit"]


@dataclass(frozen=True)
class RefitFlags(OfRun):
    """Fit another prior to the codes of a trained model; its networks stay as they are.

    Of a vae or cvae it is the prior, of an hvae or ladder that of the top level. The new run holds
    the model with that prior, its judgement and its pictures. Where the new prior is no better on
    the validation set, the old one is kept and nothing is written.
    """

    prior: Literal["mixture", "vamp", "flow", "autoregressive"] = "flow"
    """Kind of the new prior; a hierarchy has no vamp."""
    prior_components: int = 500
    """Components of a mixture or vamp prior."""
    prior_layers: int = 6
    """Layers of a flow or autoregressive prior."""
    flow_width: int = 256
    """Hidden units of the networks inside a flow or autoregressive prior."""
    epochs: float | None = None
    """Length in passes over the training set."""
    steps: int | None = None
    """Length in optimiser steps; without any length 300 epochs, at most 5,000 steps."""
    minutes: float | None = None
    """Length in minutes."""
    batch_size: int = 512
    """Examples per step."""
    learning_rate: float = 3e-3
    """Peak learning rate."""
    seed: int = 0
    """Everything random follows from it."""
    out: Path | None = None
    """Folder of the new run; RUN-PRIOR unless said."""
    overwrite: bool = False
    """Replace an earlier run in --out."""
    quiet: bool = False
    """No progress, and no results: they are in the new run's folder."""


def refit(flags: RefitFlags) -> None:
    """``lowerbound refit``."""
    from lowerbound.run_folder import check_folder, new_folder, run_config
    from lowerbound.training.refit import fit_prior

    out = flags.out or flags.run.with_name(f"{flags.run.resolve().name}-{flags.prior}")
    model, source, config = model_of(flags), data_of(flags, None), run_config(flags.run)
    check_folder(out, flags.overwrite)
    same = "prior_components prior_layers flow_width epochs steps minutes batch_size"
    names = f"{same} learning_rate seed device".split()
    options = {name: getattr(flags, name) for name in names}
    fitted = fit_prior(model, source, flags.prior, quiet=flags.quiet, **options)
    found = f"{fitted.before:.2f} nats before, {fitted.after:.2f} with the new prior"
    if not fitted.is_better:
        print(f"the old prior is kept, and nothing written: validation bound {found}")
        return
    new_folder(out, flags.overwrite)
    result = _write(config, fitted, source, out, f"to the codes of {flags.run}: {found}")
    if not flags.quiet:
        print_table(evaluation_table(result))
        print(f"\nvalidation   {found}\nrun folder   {out}\nreport       {out}/report.html")


def _write(
    config: RunConfig, fitted: PriorFit, source: Source, out: Path, found: str
) -> dict[str, Any]:
    """The folder of the new run; what it is judged to be."""
    from lowerbound.build import save_model
    from lowerbound.evaluation import evaluate
    from lowerbound.files import save_json, save_text
    from lowerbound.pictures import draw_pictures
    from lowerbound.report import write_report
    from lowerbound.run import MAX_JUDGED_ROWS, TRAIN_NUM_SAMPLES
    from lowerbound.run_folder import forget_replaced, nothing_left
    from lowerbound.training.checkpoint import RunLock

    model = fitted.model
    config = dataclasses.replace(config, options=dataclasses.asdict(model.options))
    with RunLock(out), nothing_left(out):
        save_text(out / "config.yaml", config.to_yaml())
        save_model(out, model)
        result = evaluate(
            model,
            source,
            num_samples=TRAIN_NUM_SAMPLES,
            max_rows=MAX_JUDGED_ROWS,
            keep=out / "scores.safetensors",
        )
        result["notes"] = [*result["notes"], f"The prior was fitted afterwards, {found}."]
        save_json(out / "evaluation.json", result)
        draw_pictures(model, source, out, [], method=config.latents)
        write_report(out)
        forget_replaced(out)
    return result
