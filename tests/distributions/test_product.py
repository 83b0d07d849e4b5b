"""The product likelihood of a table: columns in their places, each as if it were alone."""

from __future__ import annotations

import pytest
import torch

from lowerbound.build import create_model, load_model, save_model
from lowerbound.data import Rows, make_source
from lowerbound.distributions import (
    Binary,
    Counts,
    Discrete,
    Product,
    ProductLikelihood,
    Real,
    Unit,
    make_likelihood,
)
from lowerbound.errors import InputError
from lowerbound.run import fit
from tests.distributions.families import raw_outputs

TABLE = Product((Real(), Binary(), Discrete(5), Real(), Counts(), Unit(), Binary()))


def table(num: int = 400) -> torch.Tensor:
    """Rows whose columns follow from one hidden number."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(num, generator=generator)
    noise = torch.rand(num, 7, generator=generator)
    columns = [
        100 + 30 * z + noise[:, 0],
        (noise[:, 1] < torch.sigmoid(3 * z)).float(),
        (2 + z + noise[:, 2]).round().clamp(0, 4),
        0.01 * noise[:, 3] - 0.02 * z,
        torch.poisson(torch.exp(2 + z), generator=generator),
        torch.sigmoid(2 * z),
        (noise[:, 6] < 0.5).float(),
    ]
    return torch.stack(columns, 1)


def test_a_row_is_scored_as_the_sum_of_its_columns():
    likelihood = ProductLikelihood((7,), TABLE)
    x = table()
    likelihood.calibrate(x)
    raw = raw_outputs(likelihood, len(x))
    total = torch.zeros(len(x))
    raws = raw[:, : sum(likelihood.sizes)].split(likelihood.sizes, 1)
    seen = set()
    for own, (part, columns) in zip(raws, likelihood._groups(), strict=True):
        alone = make_likelihood(part.event_shape, part.support)
        alone.calibrate(x[:, columns])
        p = alone(own)
        total += p.log_prob(x[:, columns])
        torch.testing.assert_close(likelihood(raw).mean[:, columns], p.mean)
        torch.testing.assert_close(
            likelihood.standardized(x)[:, columns], alone.standardized(x[:, columns])
        )
        assert {TABLE.parts[j] for j in columns} == {part.support}
        seen |= set(columns.tolist())
    assert seen == set(range(7))
    torch.testing.assert_close(likelihood(raw).log_prob(x), total)
    assert likelihood(raw).support == TABLE


def test_columns_take_the_likelihoods_that_are_named():
    names = (
        "laplace",
        "auto",
        "categorical",
        "student-t",
        "zero-inflated-poisson",
        "auto",
        "auto",
    )
    likelihood = ProductLikelihood((7,), TABLE, columns=names, sigma="decoder")
    made = {j: part.name for part, js in likelihood._groups() for j in js.tolist()}
    defaults = {1: "bernoulli", 5: "continuous-bernoulli", 6: "bernoulli"}
    assert made == {j: defaults.get(j, names[j]) for j in range(7)}
    # 2 + 2 of the real columns, 1 + 1 binary, 5 levels, rate and gate, 1 logit: 14 of 2 · 7
    assert likelihood.num_outputs == 2
    assert len(likelihood.notes()) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": ("auto",)}, "'columns' must be one likelihood for each of 7, got 1"),
        ({"columns": ("normal",) * 7}, "'likelihood' must be one of bernoulli"),
        ({"columns": ("poisson",) * 7}, "'likelihood' must be one that fits real data"),
        ({"components": 3}, "'components' must be left out where no column's"),
        ({"sigma": "optimal"}, "'sigma' must be scalar, dimension, decoder or a number in a"),
    ],
)
def test_options_that_do_not_fit_the_columns_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        make_likelihood((7,), TABLE, **options)


def test_a_product_has_a_part_for_every_column_of_a_vector():
    for shape in ((6,), (1, 7, 1)):
        with pytest.raises(InputError, match="'support' must be a product of one part per column"):
            ProductLikelihood(shape, TABLE)


def test_a_vae_learns_a_table_of_mixed_columns_and_is_loaded_again(tmp_path):
    source = make_source(Rows(x=table(), support=TABLE, name="table"))
    columns = ("auto", "auto", "logistic-mixture", "laplace", "poisson", "auto", "auto")
    options = {"latent_dim": 2, "width": 32, "columns": columns, "components": 2}
    model = create_model("vae", source, **options)
    before = float(model.bound(source.test.x).value.detach().mean())
    fit(model, source, steps=150, quiet=True)
    value = model.bound(source.test.x).value.detach()
    assert float(value.mean()) > before + 3
    save_model(tmp_path, model)
    assert torch.equal(load_model(tmp_path).bound(source.test.x).value, value)
    draws = model.sample(2000, generator=torch.Generator().manual_seed(0))
    assert TABLE.contains(draws)
    # What the columns have in common goes through z: the first falls where the fourth rises.
    assert float(torch.corrcoef(draws[:, [0, 3]].T)[0, 1]) < -0.1
