"""The terms of a diffusion's bound beside their closed forms, for Gaussian data x ~ N(0, λ) and
the denoiser that is right about them; chains of T steps; both forms of a chain's bound."""

import math

import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels
from torch import nn

import lowerbound
from lowerbound.distributions import DiagonalGaussian
from lowerbound.evaluation import two_forms
from lowerbound.models.diffusion import Diffusion
from lowerbound.models.ends import End
from lowerbound.noising import alpha, sigma
from lowerbound.schedules import LinearSchedule

LAMBDA, LOW, HIGH, STEPS = 0.3, -13.0, 5.0, (50, 100, 200, 400)
NU = math.exp(-LOW), math.exp(-HIGH)  # SNR at both ends


class Right(nn.Module):
    """E[x|z] = αλ/(α²λ + σ²) z: no network could do better."""

    def forward(self, z, level, extra=None):
        gamma = (LOW + level / 1000 * (HIGH - LOW)).unsqueeze(-1)
        a, s = alpha(gamma), sigma(gamma)
        return a * LAMBDA / (a**2 * LAMBDA + s**2) * z


class Posterior(End):
    """p(x|z_0), exactly: N(λu/(λ + 1/ν), λ/(1 + λν)) of u = z_0/α_0."""

    event_shape, support, flow_start = (1,), lowerbound.Real(), None  # no flow is followed

    def scaled(self, x):
        return x.double()

    def forward(self, u, gamma_0):
        share = LAMBDA / (LAMBDA + gamma_0.exp())
        return DiagonalGaussian(share * u, 0.5 * (share * gamma_0.exp()).log())


def model_of(levels=None):
    parts = Right(), LinearSchedule(LOW, HIGH), Posterior()
    return Diffusion(*parts, prediction="x", timesteps=levels).double().eval()


def chain_term(levels):
    nu = torch.exp(-torch.linspace(LOW, HIGH, levels, dtype=torch.float64))
    return float((0.5 * (nu[:-1] - nu[1:]) * LAMBDA / (1 + nu[1:] * LAMBDA)).sum())


def mean_of(name, value, exact):
    return name, value.mean(), exact, 5 * float(value.std()) / math.sqrt(len(value))


@torch.no_grad()
def main() -> None:
    args = arguments(__doc__)
    n, draws = 2_000 if args.quick else 20_000, 64
    x = math.sqrt(LAMBDA) * torch.randn(n, 1, dtype=torch.float64)
    noisy = 1 / (1 + NU[1])  # σ² at the noisy end
    closed = {
        "reconstruction": -0.5 * math.log(2 * math.pi * math.e * LAMBDA / (1 + NU[0] * LAMBDA)),
        "prior": 0.5 * (noisy + (1 - noisy) * LAMBDA - 1 - math.log(noisy)),
        "diffusion": 0.5 * math.log((1 + NU[0] * LAMBDA) / (1 + NU[1] * LAMBDA)),
    }
    bound = model_of().bound(x, num_samples=draws)
    found = {"reconstruction": bound.reconstruction, **bound.rates}
    rows = [mean_of(f"{name}, nats", found[name], closed[name]) for name in closed]
    total = 2 * closed["reconstruction"] - sum(closed.values())
    rows.append(mean_of("bound, nats", bound.value, total))
    rates = {T: model_of(T + 1).bound(x, num_samples=draws).rates["diffusion"] for T in STEPS}
    rows += [mean_of(f"diffusion, {T} steps", rates[T], chain_term(T + 1)) for T in STEPS]
    forms = two_forms(model_of(21), x[: n // 4])  # (1, examples, terms), of the same chains
    whole = [form.sum(-1).flatten() for form in forms]
    rows.append(mean_of("before less after Bayes' rule, 20 steps", whole[0] - whole[1], 0))
    for when, form, sums in zip(("before", "after"), forms, whole, strict=True):
        rows.append((f"variance of whole chains, {when}", sums.var(), None, None))
        step = form[..., 1:-1].var((0, 1)).mean()
        rows.append((f"variance of one step, {when}", step, None, None))
    figure, (left, right) = panels("What discretising costs", "Chains, in both forms")
    slope = (HIGH - LOW) * math.log(NU[0] * LAMBDA / math.e) / 4  # of the leading term
    left.plot([0, 0.02], [0, 0.02 * slope], color=DATA, label="leading term")
    above = [float(rates[T].mean()) - closed["diffusion"] for T in STEPS]
    left.plot([1 / T for T in STEPS], above, "o", color=MODEL, label="50 … 400 steps")
    left.set(xlabel="1/steps", ylabel="nats above continuous time")
    for sums, hue, name in zip(whole, (MARK, MODEL), ("before", "after"), strict=True):
        edges = torch.linspace(-40, 5, 60).numpy()
        right.hist(sums, edges, histtype="step", color=hue, label=f"{name} Bayes' rule")
    right.set(xlabel="the sum of a chain, nats", ylabel="chains")
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
