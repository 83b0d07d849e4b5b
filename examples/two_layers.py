"""Two layers of latents on data whose log p(x) is known: the bound, its two rates, and L_K.

    z_2 ~ N(0, I),   z_1 | z_2 ~ N(A z_2, S²),   x | z_1 ~ N(B z_1, σ²)

Then x is Gaussian with covariance B (A Aᵀ + S²) Bᵀ + σ². No model can be above the mean of its
log-density; the bound of an `hvae` is below it, and L_K in between, rising with K.
"""

import torch
from _shared import DATA, MODEL, arguments, finish, panels

import lowerbound
from lowerbound.data import Rows, make_source

SIGMA = 0.5


def main() -> None:
    args = arguments(__doc__)
    n, steps = (4_000, 300) if args.quick else (20_000, 4_000)
    A, S = torch.tensor([[1.5], [-1.0]]), torch.tensor([0.5, 0.8])
    B = torch.tensor([[1.0, 0.5], [0.5, -1.0], [0.3, 0.8], [-0.7, 0.2]])
    z_1 = torch.randn(n, 1) @ A.T + S * torch.randn(n, 2)
    x = z_1 @ B.T + SIGMA * torch.randn(n, 4)
    covariance = B @ (A @ A.T + torch.diag(S**2)) @ B.T + SIGMA**2 * torch.eye(4)
    truth = torch.distributions.MultivariateNormal(torch.zeros(4), covariance)

    source = make_source(Rows(x=x, support=lowerbound.Real(), name="two layers"))
    sizes = {"latent_dims": (2, 1), "width": 32, "depth": 1, "sigma": "scalar"}
    model = lowerbound.create_model("hvae", source, **sizes)
    lowerbound.fit(model, source, steps=steps, batch_size=256, learning_rate=3e-3, quiet=True)

    test = source.test[slice(0, 400 if args.quick else 2_000)][0]
    exact = truth.log_prob(test)
    with torch.no_grad():
        bound = model.bound(test, num_samples=100)
    estimate = lowerbound.log_likelihood(model, test, num_samples=1000).value
    # Of models that are judged on the same examples the difference is what is known well.
    gap = exact - estimate
    slack = 5 * float(gap.std()) / len(test) ** 0.5
    far, value = 1.0 if args.quick else 0.1, float(bound.value.mean())
    rows = [
        (
            "bound less log p(x), nats",
            value - float(exact.mean()),
            (-far, slack),
            None,
        ),
        ("L_1000 less log p(x), nats", -float(gap.mean()), (-far, slack), None),
        ("L_1000 less the bound, nats", float(estimate.mean()) - value, (0, far), None),
        ("rate of z_1 given z_2, nats", bound.rates["kl_1"].mean(), None, None),
        ("rate of z_2, nats", bound.rates["kl_2"].mean(), None, None),
        ("log p(x), nats", exact.mean(), None, None),
    ]

    figure, (left, right) = panels("What the bound misses", "Each example")
    left.hist((exact - bound.value).numpy(), 60, color=MODEL)
    left.axvline(0, color=DATA, label="log p(x), exact")
    left.set(xlabel="log p(x) less the bound, nats", ylabel="examples")
    right.plot(exact, estimate, ".", ms=3, color=MODEL)
    ends = [float(exact.min()), float(exact.max())]
    right.plot(ends, ends, color=DATA)
    right.set(xlabel="log p(x), exact", ylabel="L_1000 of the model")
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
