"""A prior fitted afterwards: what it gains in nats, and what it does to draws.

With encoder and decoder as they are, only E_q[log p(z)] of the bound knows the prior. The best one
is q(z), the average of all posteriors, and N(0, I) wastes KL(q(z) ‖ N(0, I)) nats: a prior that is
fitted to codes wins back a part of them, and draws then come from where codes are.
"""

import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels, tiles

import lowerbound

KINDS = {"vamp": {"prior_components": 50}, "flow": {"prior_layers": 4, "flow_width": 32}}


def draws(model, n: int, mean: bool = False) -> torch.Tensor:
    """Draws from p(x), or means of p(x|z) for z from the prior, (n, 1, 8, 8), levels."""
    return model.sample(n, generator=torch.Generator().manual_seed(0), mean=mean)


def fitted_judge(source):
    """A mixture of Gaussians, which knows nothing of the VAE: what it says of draws."""
    judge = lowerbound.create_model("mixture", source, components=30)
    lowerbound.fit(judge, source, quiet=True)
    return lambda x: float(lowerbound.log_likelihood(judge, x).value.mean())


@torch.no_grad()
def main() -> None:
    args = arguments(__doc__)
    source = lowerbound.load_data("digits")
    model = lowerbound.create_model("vae", source, latent_dim=8, width=64, kl="sampled")
    with torch.enable_grad():
        lowerbound.fit(model, source, steps=60 if args.quick else 2_000, quiet=True)

    train = source.train[slice(None)][0].float()
    x = source.test[slice(None)][0].float()
    # The same draws of q for every prior: what is compared is the prior alone.
    noise = model.judging_noise(range(len(x)), 20)
    before = model.bound(x, num_samples=20, noise=noise)
    models, rows = {"N(0, I)": model}, []
    for kind, sizes in KINDS.items():
        with torch.enable_grad():
            fitted = lowerbound.fit_prior(
                model, source, kind, steps=30 if args.quick else 1_000, **sizes
            )
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
    judge = fitted_judge(source)
    rows.append(("what a mixture says of test digits, nats", judge(x), None, None))
    for name, one in models.items():
        rows.append((f"of draws of {name}, nats", judge(draws(one, 500)), None, None))

    figure, axes = panels(
        "Codes and N(0, I): two of 8 latents", "vamp", "flow", "Means of draws", "", ""
    )
    q = model.encode(train)
    z, (i, j) = q.sample(), q.mean.std(0).topk(2).indices  # the two that vary most
    for ax, one in zip(axes[:3], models.values(), strict=True):
        prior = one.prior.sample(2_000, None, torch.Generator().manual_seed(0))
        ax.scatter(z[:, i], z[:, j], 3, DATA, alpha=0.6)
        ax.scatter(prior[:, i], prior[:, j], 2, MODEL if one is model else MARK, alpha=0.3)
        ax.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
    for ax, one in zip(axes[3:], models.values(), strict=True):
        ax.imshow(tiles(draws(one, 48, mean=True).squeeze(1) / 16, columns=8), cmap="gray_r")
        ax.set_axis_off()
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
