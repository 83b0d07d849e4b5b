"""A quantised autoencoder whose total is a bound: four codes of eight values, and a prior on them.

An example is the sequence of codes that its encoder chooses, and log p(x, c) for that one c is a
bound on log p(x) = log Σ_c p(x, c). Here there are few enough sequences to compute the sum.
"""

import itertools
import math

import torch
from _shared import DATA, INK, MODEL, arguments, finish, panels, tiles

import lowerbound

PLACES, SIZE = 4, 8
IMAGES = 8


@torch.no_grad()
def evidence(model, x: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Log p(x) of examples (B, 1, 8, 8), (B,): the sum over all sequences of codes (S, 4)."""
    log_prior = model.prior.log_prob(codes)
    parts = []
    for p, weight in zip(codes.split(512), log_prior.split(512), strict=True):
        log_p = model.decode(p).log_prob(x.unsqueeze(1))  # (B, 512): every image, every sequence
        parts.append((log_p + weight).logsumexp(1))
    return torch.stack(parts).logsumexp(0)


@torch.no_grad()
def main() -> None:
    args = arguments(__doc__)
    source = lowerbound.load_data("digits")
    options = {"places": PLACES, "codebook_size": SIZE, "latent_dim": 8, "width": 64}
    model = lowerbound.create_model("vqvae", source, **options, prior_width=32, prior_depth=1)
    with torch.enable_grad():
        lowerbound.fit(model, source, steps=80 if args.quick else 1500, quiet=True)

    x = source.test[slice(0, 40 if args.quick else 100)][0].float()
    bound, chosen = model.bound(x), model.codes(x)
    every = torch.tensor(list(itertools.product(range(SIZE), repeat=PLACES)))
    log_prior, log_p = model.prior.log_prob(every), evidence(model, x, every)
    weight = model.log_weight(x, 50)  # fifty draws of a point
    rate, uniform = float(bound.rates["codes"].mean()), PLACES * math.log(SIZE)
    used = model.facts()
    rows = [
        ("sum of p(c) over all sequences", log_prior.exp().sum(), 1, 1e-4),
        ("spread of 50 log-weights, nats", weight.std(0).max(), 0, 1e-6),
        (
            "L_50 above the bound, nats",
            (weight.logsumexp(0) - math.log(50) - bound.value).abs().max(),
            0,
            1e-3,
        ),
        ("log p(x) above the bound, nats", (log_p - bound.value).mean(), (0, 20), None),
        ("smallest of these differences", (log_p - bound.value).min(), (-1e-4, 20), None),
        ("what a code costs, nats", rate / PLACES, (0, math.log(SIZE)), None),
        ("what the prior saves per digit, nats", uniform - rate, (0, uniform), None),
        ("bound, nats per digit", bound.value.mean(), None, None),
        ("log p(x), nats per digit", log_p.mean(), None, None),
        ("perplexity of the codes", used["code_perplexity"], (1, SIZE + 1e-6), None),
    ]

    titles = (
        "Digits, and what four codes keep",
        "Draws: prior on the left, any codes",
        "Codes in use",
    )
    figure, (kept, drawn, usage) = panels(*titles)
    pairs = torch.cat([x[:IMAGES], model.decode(chosen[:IMAGES]).mean])
    kept.imshow(tiles(pairs.squeeze(1) / 16, IMAGES), cmap="gray_r")
    generator = torch.Generator().manual_seed(0)
    by_prior = model.prior.sample(32, None, generator)
    anyhow = torch.randint(SIZE, (32, PLACES), generator=generator)
    side_by_side = torch.cat([by_prior.view(8, 4, -1), anyhow.view(8, 4, -1)], 1).flatten(0, 1)
    drawn.imshow(tiles(model.decode(side_by_side).mean.squeeze(1) / 16, 8), cmap="gray_r")
    drawn.axvline(39.5, color=MODEL)
    for ax in (kept, drawn):
        ax.set_axis_off()
    train = model.codes(source.train[slice(None)][0])
    for place in range(PLACES):
        share = torch.bincount(train[:, place], minlength=SIZE) / len(train)
        usage.plot(range(SIZE), share, "o-", color=INK, alpha=0.3 + 0.2 * place, markersize=3)
    usage.axhline(1 / SIZE, color=DATA, linestyle="--", label="even")
    usage.set(xlabel="code", ylabel="share, a line per place", ylim=(0, None))
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
