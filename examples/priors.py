"""A prior fitted afterwards: what it gains in nats, and what it does to draws.

With encoder and decoder as they are, only E_q[log p(z)] of the bound knows the prior. The best one
is q(z), the average of all posteriors, and N(0, I) wastes KL(q(z) ‖ N(0, I)) nats: a prior that is
fitted to codes wins back a part of them, and draws then come from where codes are.
"""

import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels, tiles

import lowerbound
from lowerbound.training import fit_prior

KINDS = {"vamp": {"prior_components": 50}, "flow": {"prior_layers": 4, "flow_width": 32}}


def draws(model, n: int) -> torch.Tensor:
    """Means of p(x|z) for z from the prior, (n, 64), levels."""
    return model.sample(n, generator=torch.Generator().manual_seed(0), mean=True).flatten(1)


def distance(x: torch.Tensor, known: torch.Tensor) -> float:
    """From each of ``x`` (n, 64) to the nearest of ``known``: root mean square per pixel."""
    nearest = torch.cdist(x, known).min(1).values
    return float(nearest.square().mean().div(x.shape[1]).sqrt())


@torch.no_grad()
def main() -> None:
    args = arguments(__doc__)
    source = lowerbound.load_data("digits")
    model = lowerbound.create_model("vae", source, latent_dim=2, width=64, kl="sampled")
    with torch.enable_grad():
        lowerbound.fit(model, source, steps=100 if args.quick else 2_000, quiet=True)

    train = source.train[slice(None)][0].float()
    x = source.test[slice(None)][0].float()
    # The same draws of q for every prior: what is compared is the prior alone.
    noise = model.judging_noise(range(len(x)), 20)
    before = model.bound(x, num_samples=20, noise=noise)
    models, rows = {"N(0, I)": model}, []
    for kind, sizes in KINDS.items():
        with torch.enable_grad():
            fitted = fit_prior(model, source, kind, steps=60 if args.quick else 1_000, **sizes)
        after = fitted.model.bound(x, num_samples=20, noise=noise)
        same = (after.reconstruction - before.reconstruction).abs().max()
        gain = (after.value - before.value).mean()
        rows += [
            (f"{kind}: what the reconstruction moved, nats", same, 0, 1e-3),
            (
                f"{kind}: validation bound, gain in nats",
                fitted.after - fitted.before,
                (0, 9),
                None,
            ),
            (f"{kind}: test bound, gain in nats", gain, (-0.5, 9), None),
            (
                f"{kind}: that is the rate's, difference",
                gain - (before.rate - after.rate).mean(),
                0,
                1e-3,
            ),
        ]
        models[kind] = fitted.model
    reference = distance(x.flatten(1), train.flatten(1))
    rows.append(("test digits to the nearest training digit, levels", reference, None, None))
    for name, one in models.items():
        far = distance(draws(one, 1_000), train.flatten(1))
        rows.append((f"draws of {name} to the nearest, levels", far, None, None))

    figure, axes = panels("Codes, and 2,000 draws of N(0, I)", "vamp", "flow", "Its draws", "", "")
    z = model.encode(train).mean
    for ax, one in zip(axes[:3], models.values(), strict=True):
        prior = one.prior.sample(2_000, None, torch.Generator().manual_seed(0))
        ax.scatter(*z.T, 3, DATA, alpha=0.6)
        ax.scatter(*prior.T, 2, MODEL if one is model else MARK, alpha=0.3)
        ax.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
    for ax, one in zip(axes[3:], models.values(), strict=True):
        ax.imshow(tiles(draws(one, 48).view(-1, 8, 8) / 16, columns=8), cmap="gray_r")
        ax.set_axis_off()
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
