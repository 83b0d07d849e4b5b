"""Three latent spaces of the same digits: autoencoder, mean-reduced VAE, VAE.

Without a rate the codes are points scattered anywhere, with holes between them; with the pixel
mean in place of the sum every posterior is the prior and no code says anything; with the bound
the posteriors fill the prior, E[μ² + σ²] = 1 in each latent, and the way between codes is paved.
"""

import math

import torch
from _shared import HUES, arguments, finish, panels
from matplotlib.patches import Ellipse
from sklearn.datasets import load_digits
from sklearn.manifold import TSNE

import lowerbound
from lowerbound.data import InMemorySplit, Source

d, D = 8, 64
NAMES = ("autoencoder", "mean-reduced VAE", "VAE")


def trained(name: str, source: Source, steps: int) -> lowerbound.Model:
    """The same networks under three objectives."""
    # A squared error averaged over D pixels is σ² = ½ with β = D.
    mean_reduced = name.startswith("mean")
    options = {"sigma": math.sqrt(0.5) if mean_reduced else "scalar"}
    kind, options = ("vae", options) if name.endswith("VAE") else (name, {})
    model = lowerbound.create_model(kind, source, latent_dim=d, width=128, **options)
    beta = float(D) if mean_reduced else 1.0
    options = {"beta": beta, "validations": 1, "precision": "float32", "device": "cpu"}
    lowerbound.fit(model, source, steps=steps, quiet=True, **options)
    return model


def hole(codes: torch.Tensor) -> float:
    """Distance to the nearest code halfway between two, over the usual distance of neighbours."""
    halfway = (codes[:600] + codes[600:1200]) / 2
    apart = torch.cdist(codes, codes).fill_diagonal_(math.inf)
    return float(torch.cdist(halfway, codes).min(1).values.median() / apart.min(1).values.median())


def main() -> None:
    args = arguments(__doc__)
    digits = load_digits()
    x, labels = torch.from_numpy(digits.data / 16).float(), digits.target
    part = InMemorySplit(x)
    source = Source(part, part, part, (D,), lowerbound.Real())
    rows, num = [], 150 if args.quick else 600
    titles = (
        *(f"{name}: t-SNE of drawn codes" for name in NAMES),
        *("two latents, ellipses of 3σ",) * 3,
    )
    figure, axes = panels(*titles)
    for i, name in enumerate(NAMES):
        model = trained(name, source, steps=50 if args.quick else 2_000)
        with torch.no_grad():
            q = model.encode(x)
            mu, scale, z = q.mean, torch.zeros_like(q.mean), q.mean
            if name.endswith("VAE"):
                scale, z = q.log_scale.exp(), q.sample(torch.Generator().manual_seed(0))
                kl, second = model.bound(x).rate.mean(), (mu.square() + scale.square()).mean()
                claim = (0, 0.05) if name.startswith("mean") else (None, None)
                rows.append((f"{name}: KL, nats", kl, *claim))
                within = 0.25  # training is slow along this direction
                rows.append((f"{name}: E[μ² + σ²], mean over latents", second, 1, within))
        rows.append((f"{name}: hole halfway between two codes", hole(z), None, None))
        hues = [HUES[c] for c in labels[:num]]
        plane = TSNE(2, init="pca", random_state=0, max_iter=250 if args.quick else 500)
        axes[i].scatter(*plane.fit_transform(z[:num].numpy()).T, 4, hues)
        axes[i].set(xticks=[], yticks=[])
        first, other = mu.var(0).argsort(descending=True)[:2].tolist()
        for n in range(150):
            sizes = 6 * scale[n, [first, other]]
            centre = mu[n, [first, other]].tolist()
            axes[3 + i].add_patch(Ellipse(centre, *sizes, fill=False, color=hues[n], alpha=0.7))
        axes[3 + i].scatter(*mu[:150, [first, other]].T, 4, hues[:150])
        reach = 3.5 if i else 1.5 * float(mu.abs().quantile(0.99))
        axes[3 + i].set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes[3 + i].set(xlabel=f"z{first + 1}", ylabel=f"z{other + 1}")
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
