"""What each level of a ladder holds, measured: the variance of what is drawn, level by level.

Draw everything, then draw levels l … 1 anew below the same z_{>l}. Two such images differ by
E ‖x − x'‖² = 2 E Var(x | z_{>l}), which rises with l to twice the whole variance: what it rises by
from one level to the next is that level's share. The rates say what each level is told about x.
"""

import itertools

import torch
from _shared import DATA, MODEL, arguments, finish, panels, tiles

import lowerbound
from lowerbound.generation import redraw_levels

LEVELS = 3


def drawn(model, n: int, seed: int) -> torch.Tensor:
    """Latents of all levels side by side, in units of their priors: N(0, I), (n, d)."""
    return model.prior.sample(n, None, torch.Generator().manual_seed(seed))


@torch.no_grad()
def main() -> None:
    args = arguments(__doc__)
    source = lowerbound.load_data("digits")
    sizes = {"levels": LEVELS, "latent_dim": 4, "width": 64}
    model = lowerbound.create_model("ladder", source, **sizes)
    with torch.enable_grad():
        steps = 60 if args.quick else 2_000
        lowerbound.fit(model, source, steps=steps, beta_warmup=0.2, quiet=True)

    # The variance of means of p(x|z), and how much of it each level makes.
    n = 500 if args.quick else 5_000
    z, other = drawn(model, n, 0), drawn(model, n, 1)
    x = model.decode(z).mean.flatten(1)
    whole = 2 * float(x.var(0).sum())
    below = [0.0]
    for span in model.spans():  # level 1, next to the data, comes first
        again = z.clone()
        again[:, : span.stop] = other[:, : span.stop]
        squared = (x - model.decode(again).mean.flatten(1)).square().sum(1)
        below.append(float(squared.mean()))
    error = 5 * float(squared.std()) / n**0.5
    shares = [(b - a) / below[-1] for a, b in itertools.pairwise(below)]

    test = source.test[slice(0, 200)][0]
    bound = model.bound(test, num_samples=20)
    draw = model.draw(test, 20)
    rates = {name: float(rate.mean()) for name, rate in bound.rates.items()}
    weight = draw.log_weight.mean(0) - bound.value
    noise = 5 * float(weight.std()) / len(test) ** 0.5
    rows = [
        ("all levels anew: mean squared difference", below[-1], whole, error),
        ("shares of the levels, their sum", sum(shares), 1, 1e-9),
        *((f"share of level {i}", s, (-0.05, 1), None) for i, s in enumerate(shares, 1)),
        *((f"rate of level {i}, nats", rates[f"kl_{i}"], (0, 99), None) for i in (1, 2, 3)),
        ("mean log-weight less the bound, nats", weight.mean(), 0, noise),
        ("bound, nats per digit", bound.value.mean(), None, None),
    ]
    figure, (left, bars) = panels("New from level 1, 2, 3 (rows) downwards", "What a level holds")
    images = redraw_levels(model, 8).flatten(0, 1).squeeze(1) / 16
    left.imshow(tiles(images, columns=8), cmap="gray_r")
    left.set_axis_off()
    places = torch.arange(1, LEVELS + 1)
    total = sum(rates.values())
    bars.bar(places - 0.18, shares, 0.36, color=MODEL, label="share of the variance of draws")
    bars.bar(places + 0.18, [r / total for r in rates.values()], 0.36, color=DATA, label="of rate")
    bars.set(xlabel="level, 1 next to the data", xticks=[1, 2, 3], ylim=(0, 1.25))
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
