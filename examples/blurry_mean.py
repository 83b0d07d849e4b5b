"""A blurry mean, a noisy draw, and why neither looks like the data.

A decoder gives a distribution: its mean is the average of all pictures that z could be, its draws
are that plus the noise σ of every pixel. Probabilistic PCA shows both with exact numbers: means
lack variance, draws have the right amount of it in the wrong place.
"""

import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels, tiles
from sklearn.datasets import load_digits

import lowerbound
from lowerbound.data import InMemorySplit, Source

# Squared error per pixel of decoding the posterior mean, of the digits as rows x/16.
POSTERIOR_MEAN = {2: 0.05256, 5: 0.03359, 10: 0.01952, 16: 0.01142, 20: 0.00813, 32: 0.00272}


def main() -> None:
    args = arguments(__doc__)
    x = torch.from_numpy(load_digits().data / 16)
    part = InMemorySplit(x)
    source = Source(part, part, part, (64,), lowerbound.Real())
    D, total = x.shape[1], x.var(0, correction=0).sum()
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    generator = torch.Generator().manual_seed(0)
    repeats = 5 if args.quick else 50
    rows, of_means, of_draws = [], [], []
    for k, known in POSTERIOR_MEAN.items():
        model = lowerbound.create_model("ppca", source, latent_dim=k)
        lowerbound.fit(model, source, quiet=True)
        sigma2 = float(eigenvalues[k:].mean())
        q = model.encode(x)
        at_mean = (model.decode(q.mean).mean - x).square().mean()
        squared = torch.zeros(2, dtype=torch.float64)
        for _ in range(repeats):
            p = model.decode(q.sample(generator))
            for i, picture in enumerate((p.mean, p.sample(generator))):
                squared[i] += (picture - x).square().mean() / repeats
        of_means.append(float(squared[0]))
        of_draws.append(float(squared[1]))
        rows.append((f"k = {k}: error at the posterior mean", at_mean, known, 6e-6))
        if k == 10:
            noise = 5 * (2 / (x.numel() * repeats)) ** 0.5  # five standard errors, of a χ²
            means = model.sample(20_000, generator=generator, mean=True).var(0).sum()
            draws = model.sample(20_000, generator=generator).var(0).sum()
            rows += [
                ("k = 10: error of a drawn z's mean, σ²", squared[0], sigma2, 2 * noise * sigma2),
                (
                    "k = 10: error of a drawn z's draw, 2σ²",
                    squared[1],
                    2 * sigma2,
                    2 * noise * sigma2,
                ),
                ("k = 10: variance of means: Dσ² too little", means, total - D * sigma2, 0.1),
                ("k = 10: variance of draws: the data's", draws, total, 0.1),
            ]
            ten = model
    titles = ("Squared error per pixel", "Digits, their means, their draws (k = 10)")
    figure, (curve, pictures) = panels(*titles, width=4)
    ks = list(POSTERIOR_MEAN)
    curve.plot(ks, of_draws, "o-", color=MARK, label="draw of p(x|z), z drawn")
    curve.plot(ks, of_means, "o-", color=MODEL, label="mean of p(x|z), z drawn")
    curve.plot(ks, list(POSTERIOR_MEAN.values()), color=DATA, label="mean of p(x|z), mean z")
    curve.set(xlabel="latent dimensions k")
    p = ten.decode(ten.encode(x[:6]).mean)
    pictured = torch.cat([x[:6], p.mean, p.sample(generator)]).reshape(-1, 8, 8)
    pictures.imshow(tiles(pictured, columns=6), cmap="gray_r")
    pictures.set(xticks=[], yticks=[5, 15, 25], yticklabels=["data", "mean", "draw"])
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
