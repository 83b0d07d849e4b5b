"""The conditional VAE: its bound against closed forms and against the VAE; what it is told."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lowerbound.build import create_model
from lowerbound.data import Classes, InMemorySplit, Mask, Rows, Source, Vector, make_source
from lowerbound.distributions import GaussianLikelihood, Real
from lowerbound.errors import InputError
from lowerbound.evaluation import evaluate, log_likelihood
from lowerbound.models import CVAE, ConditionalNormal, StandardNormal
from lowerbound.nn import Embedding, Joined
from lowerbound.run import fit

SHAPE = (1, 6, 6)
CONTEXTS = [Classes(4), Vector(3), Mask()]
each_conditional = pytest.mark.parametrize("prior", ["conditional", "conditional-flow"])
each_context = pytest.mark.parametrize("context", CONTEXTS, ids=lambda c: c.kind)


def contexts(kind, num: int, shape=SHAPE) -> Tensor:
    """Some contexts of a kind, (num, …), by a fixed seed."""
    generator = torch.Generator().manual_seed(5)
    if isinstance(kind, Classes):
        return torch.arange(num) % kind.num_classes
    if isinstance(kind, Vector):
        return torch.randn(num, kind.size, generator=generator)
    mask = torch.rand(num, *shape, generator=generator) < 0.5
    return torch.stack([mask * torch.rand(num, *shape, generator=generator), mask], 1)


def examples(num: int, shape=SHAPE) -> Tensor:
    return torch.randn(num, *shape, generator=torch.Generator().manual_seed(2))


def small(context, shape=SHAPE, **options) -> CVAE:
    options = {"latent_dim": 3, "width": 16, **options}
    return create_model("cvae", shape, context=context, **options)


def drawn_anew(model: nn.Module, seed: int = 0, scale: float = 0.3) -> None:
    """Parameters away from where they start: a conditional prior starts without its context."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(std=scale, generator=generator)


# --- against closed forms


class Table(Embedding):
    """Classes (B,) -> fixed rows (B, 2)."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.size, self.rows = rows.shape[1], rows

    def measure(self, context: Tensor) -> None:
        return

    def forward(self, context: Tensor) -> Tensor:
        return self.rows[context]


def linear(weight: Tensor, bias: float | Tensor = 0.0) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
    layer.weight.data.copy_(weight)
    layer.bias.data.copy_(torch.as_tensor(bias))
    return layer


def linear_gaussian(is_prior_conditional: bool, kl: str = "sampled") -> tuple[CVAE, Tensor]:
    """z|c ~ N(u_c, τ²), x|z, c ~ N(w z + m_c, s²), and the exact posterior; p(x|c) by class.

    The embedding of a class is (u_c, m_c).
    """
    w, s, tau = 1.3, 0.6, 0.7
    rows = torch.tensor([[-2.0, 5.0], [0.5, -1.0], [1.0, 30.0]], dtype=torch.float64)
    if not is_prior_conditional:
        rows[:, 0], tau = 0.0, 1.0
    table = Table(rows)
    prior = StandardNormal(1)
    if is_prior_conditional:
        prior = ConditionalNormal(table, 1)
        prior.network = linear(
            torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([0, tau]).log()
        )
        prior.network.bias.data[0] = 0.0
    variance = 1 / (1 / tau**2 + w**2 / s**2)
    gain = variance * w / s**2
    encoder = linear(
        torch.tensor([[gain, variance / tau**2, -gain], [0.0, 0.0, 0.0]]),
        torch.tensor([0.0, 0.5 * math.log(variance)]),
    )
    decoder = linear(torch.tensor([[w, 0.0, 1.0]]))
    model = CVAE(
        Joined(encoder, is_flat=True),
        Joined(decoder, is_flat=True),
        GaussianLikelihood((1,), Real(), s),
        prior,
        1,
        kl=kl,
        context=Classes(3),
        embedding=table,
    )
    means = w * rows[:, 0] + rows[:, 1]
    p = torch.distributions.Normal(means, math.sqrt(w**2 * tau**2 + s**2))
    return model.double().eval(), p


@pytest.mark.parametrize("is_prior_conditional", [False, True])
def test_a_linear_gaussian_model_is_judged_by_its_exact_evidence_given_the_class(
    is_prior_conditional,
):
    model, p = linear_gaussian(is_prior_conditional)
    x = 10 * torch.randn(30, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    context = torch.arange(30) % 3
    exact = torch.stack([p.log_prob(x)[i, c] for i, c in enumerate(context)])
    assert exact.std() > 10  # the class decides
    tolerance = {"rtol": 1e-6, "atol": 1e-5}  # the fixed sigma is stored in float32
    # At the true posterior every draw of the bound and every weight is the evidence itself.
    torch.testing.assert_close(model.bound(x, context).value, exact, **tolerance)
    judged = log_likelihood(model, x, num_samples=7, context=context)
    torch.testing.assert_close(judged.value, exact, **tolerance)
    split = InMemorySplit(x, context)
    source = Source(split, split, split, (1,), Real(), Classes(3), "made up")
    result = evaluate(model, source, num_samples=5, baselines=False)
    assert result["log_likelihood"]["value"] == pytest.approx(float(exact.mean()), rel=1e-6)


def test_draws_given_a_class_are_of_its_distribution():
    model, p = linear_gaussian(is_prior_conditional=True)
    num = 20_000
    for c in range(3):
        x = model.sample(num, torch.full((num,), c), generator=torch.Generator().manual_seed(c))
        assert float(x.mean()) == pytest.approx(
            float(p.mean[c]), abs=4 * float(p.stddev[c]) / math.sqrt(num)
        )
        assert float(x.std()) == pytest.approx(float(p.stddev[c]), rel=4 / math.sqrt(2 * num))


@each_context
def test_the_kl_to_a_conditional_prior_is_that_of_its_samples(context):
    model = small(context, prior="conditional", kl="sampled").double()
    drawn_anew(model)
    x, given, num = examples(4).double(), contexts(context, 4), 40_000
    noise = model.noise(4, num, torch.Generator().manual_seed(0))
    q = model.encode(x, given)
    z = q.rsample(noise["z"])
    each = (q.log_prob(z) - model.prior.log_prob(z, given)).detach()
    sampled = model.bound(x, given, num_samples=num, noise=noise).rates["kl"].detach()
    torch.testing.assert_close(sampled, each.mean(0))
    model.kl = "analytic"
    bound = model.bound(x, given)
    analytic = bound.rates["kl"].detach()
    assert ((analytic - sampled).abs() < 4 * each.std(0) / math.sqrt(num)).all()
    torch.testing.assert_close(bound.details["kl"].sum(1), bound.rates["kl"])
    other = model.prior.rates(q, z, given.roll(1, 0), "analytic")[0]["kl"]
    assert ((other - analytic).abs() > 1e-3).all()  # the prior sees the context


@each_conditional
def test_a_conditional_prior_starts_as_a_standard_normal(prior):
    plain, conditional = (small(Classes(4), prior=name) for name in ("normal", prior))
    z = torch.randn(5, 3)
    given = torch.arange(5) % 4
    torch.testing.assert_close(
        conditional.prior.log_prob(z, given), plain.prior.log_prob(z, given)
    )


@each_conditional
@pytest.mark.parametrize("context", CONTEXTS[:2], ids=lambda c: c.kind)
def test_a_conditional_prior_is_a_density_for_each_context_and_draws_come_from_it(context, prior):
    model = small(context, prior=prior, latent_dim=2, prior_layers=4, flow_width=16).double()
    drawn_anew(model, scale=0.2)
    axis, num = torch.linspace(-12, 12, 301, dtype=torch.float64), 20_000
    means = []
    for one in contexts(context, 3).split(1):
        given = one.expand(num, *one.shape[1:])
        drawn = model.prior.sample(num, given, torch.Generator().manual_seed(0))
        z = drawn.mean(0) + drawn.std(0) * torch.cartesian_prod(axis, axis)
        area = float(drawn.std(0).prod() * (axis[1] - axis[0]) ** 2)
        with torch.no_grad():
            density = model.prior.log_prob(z[:, None], one)[:, 0].exp()[:, None] * area
        assert float(density.sum()) == pytest.approx(1, abs=1e-3)
        mean = (density * z).sum(0)
        deviation = ((density * z.square()).sum(0) - mean.square()).sqrt()
        assert ((drawn.mean(0) - mean).abs() < 4 * deviation / math.sqrt(num)).all()
        torch.testing.assert_close(drawn.std(0), deviation, rtol=0.05, atol=0)
        means.append(mean)
    assert torch.stack(means).std(0).min() > 0.01  # each context has a density of its own


@each_conditional
def test_a_conditional_prior_is_not_asked_without_a_context(prior):
    model = small(Classes(4), prior=prior)
    with pytest.raises(InputError, match="must be given to a conditional prior"):
        model.prior.log_prob(torch.zeros(2, 3))
    with pytest.raises(InputError, match="must be given to a conditional prior"):
        model.prior.sample(2)


# --- against the VAE


NETWORKS = [
    *(("mlp", shape) for shape in ((5,), (2, 9), SHAPE)),
    *(("hybrid", shape) for shape in (SHAPE, (1, 17, 18))),
    *(("conv", shape) for shape in ((2, 9), SHAPE, (1, 4, 3, 5))),
]


@pytest.mark.parametrize(("network", "shape"), NETWORKS, ids=str)
@each_context
def test_networks_that_ignore_the_context_have_the_bound_of_the_vae(context, network, shape):
    sizes = {"network": network, "latent_dim": 3, "width": 16}
    vae = create_model("vae", shape, seed=1, **sizes).double()
    drawn_anew(vae)
    model = create_model("cvae", shape, context=context, **sizes).double()
    state = model.state_dict()
    for name, weight in vae.state_dict().items():
        part, _, rest = name.partition(".")
        own = state[f"{part}.network.{rest}" if part in ("encoder", "decoder") else name]
        own.zero_()
        if own.shape == weight.shape:
            own.copy_(weight)
        else:  # the first layer, which sees the embedding behind its input
            own[:, : weight.shape[1]] = weight
    x = examples(6, shape).double()
    given = contexts(context, 6, shape)
    if isinstance(context, Mask):  # else what is observed costs nothing
        given = context.unknown(6, shape)
    noise = vae.noise(6, 2, torch.Generator().manual_seed(0))
    for one, other in zip(
        vae.bound(x, num_samples=2, noise=noise).terms().values(),
        model.bound(x, given, num_samples=2, noise=noise).terms().values(),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    weights = vae.log_weight(x, 2, noise=noise), model.log_weight(x, 2, given, noise=noise)
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-6)


@each_context
def test_every_part_sees_the_context(context):
    model = small(context)
    x, given = examples(4), contexts(context, 4)
    other = given.roll(1, 0)
    assert (model.encode(x, given).loc != model.encode(x, other).loc).all()
    z = torch.zeros(4, 3)
    raw = [model.decoder(z, model.embedding(c)) for c in (given, other)]
    assert (raw[0] != raw[1]).all()


# --- classes


def uneven(num: int = 600) -> Source:
    """Rows of three classes of very different sizes."""
    labels = torch.cat([torch.full((n,), c) for c, n in ((0, 420), (1, 150), (2, 30))])
    order = torch.randperm(num, generator=torch.Generator().manual_seed(0))
    x = torch.randn(num, 2, generator=torch.Generator().manual_seed(1))
    names = ("cat", "dog", "owl")
    return make_source(Rows(x, Real(), "uneven", labels=labels[order], class_names=names))


def test_classes_are_drawn_as_often_as_in_the_training_set():
    source = uneven()
    model = create_model("cvae", source, latent_dim=2, width=8)
    share = torch.bincount(source.train.labels, minlength=3) / len(source.train)
    assert not torch.allclose(share, torch.full((3,), 1 / 3), atol=0.1)
    torch.testing.assert_close(model.embedding.frequencies, share)
    num = 20_000
    drawn = model.draw_context(num, torch.Generator().manual_seed(0))
    error = (share * (1 - share) / num).sqrt()
    assert ((torch.bincount(drawn, minlength=3) / num - share).abs() < 4 * error).all()


def test_classes_that_are_not_known_are_learned_from_but_not_counted():
    labels = torch.tensor([0, 0, 1, 3, 3, 3, 2, 0])
    split = InMemorySplit(examples(8, (2,)), labels)
    source = Source(split, split, split, (2,), Real(), Classes(3), "half labelled")
    model = create_model("cvae", source, latent_dim=2, width=8, label_dropout=0.1)
    torch.testing.assert_close(model.embedding.frequencies, torch.tensor([0.6, 0.2, 0.2]))


def test_other_data_are_refused_before_anything_is_measured(blobs):
    source = uneven()
    model = create_model("cvae", (2,), context=source.context, latent_dim=2, width=8)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    bad = InMemorySplit(source.train.x, torch.full((len(source.train),), 7))
    wrong = Source(bad, bad, bad, (2,), Real(), source.context, "wrong")
    more = Source(*[source.train] * 3, (2,), Real(), Classes(5), "more")
    for other, message in (
        (wrong, "'context' must be one of 3 classes: cat, dog, owl, got 7"),
        (more, "'labels' must be of the 3 classes: cat, dog, owl that the model was trained with"),
    ):
        with pytest.raises(InputError, match=message):
            fit(model, other, steps=1, quiet=True)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    fit(model, source, steps=2, quiet=True)
    for call in (lambda: fit(model, more, steps=1, quiet=True), lambda: evaluate(model, more)):
        with pytest.raises(InputError, match="'labels' must be of the 3 classes"):
            call()  # a second time too, when everything is measured


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": "optimal"}, "'sigma' must be learned or fixed for a masked x, got optimal"),
        ({"likelihood": "product"}, "'likelihood' must be one of single elements for a masked x"),
        ({"label_dropout": 1.5}, "'label_dropout' must be from 0 to 1, got 1.5"),
        ({"context_dim": 0}, "'context_dim' must be at least 1, got 0"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        small(Mask(), **options)


def test_a_masked_table_of_columns_is_refused():
    """Its log-probability comes as a sum over columns, of which none can be left out."""
    with pytest.raises(InputError, match="'likelihood' must be one of single elements"):
        create_model("cvae", (3,), support="product:real,binary,counts", context=Mask())


@each_context
def test_a_context_that_does_not_fit_is_refused_by_every_door(context):
    model = small(context)
    x, given = examples(3), contexts(context, 3)
    wrong = given + 4 if isinstance(context, Classes) else given[:, :1]
    for call in (
        lambda: model.bound(x, wrong),
        lambda: model.encode(x, wrong),
        lambda: model.decode(torch.zeros(3, 3), wrong),
        lambda: model.sample(3, wrong),
        lambda: log_likelihood(model, x, num_samples=2, context=wrong),
    ):
        with pytest.raises(InputError, match="'context' must be"):
            call()
    if not isinstance(context, Classes):
        with pytest.raises(InputError, match="take it from a split"):
            model.sample(3)


def test_the_optimal_sigma_is_the_error_of_decoded_draws_given_their_contexts():
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    rows = Rows(x=x, support=Real(), labels=torch.arange(300) % 3, name="normal")
    source = make_source(rows)
    model = create_model("cvae", source, latent_dim=2, width=16, sigma="optimal")
    with torch.no_grad():
        nn.init.normal_(model.embedding.table.weight, std=3.0)
        for parameter in model.decoder.parameters():
            nn.init.normal_(parameter, std=0.2)
    model.settle(source)
    train, context = source.train[slice(None)]
    z = model.encode(train, context).rsample(model.judging_noise(range(len(train)))["z"])[0]
    decoded = model.decode(z, context)
    expected = (train - decoded.mean).square().mean().sqrt()
    torch.testing.assert_close(decoded.log_scale.exp().max(), expected, rtol=1e-4, atol=1e-4)
