"""Supports: what they hold, how they are written, and how data are admitted to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lowerbound.data.values import as_rows
from lowerbound.distributions import Binary, Counts, Discrete, Product, Real, Unit, parse_support
from lowerbound.errors import InputError
from tests.distributions.families import SUPPORTS, extremes, outside

TABLE = Product((Real(), Binary(), Discrete(5), Counts(), Unit()))


@pytest.mark.parametrize("support", SUPPORTS, ids=str)
def test_what_a_support_writes_can_be_read(support):
    assert parse_support(str(support)) == support
    assert hash(parse_support(str(support))) == hash(support)


@pytest.mark.parametrize(
    "text",
    "bytes Real product product: product:real, product:real,bytes product:product:real discrete "
    "discrete:x counts:5".split(),
)
def test_what_is_no_support_is_refused_with_the_names(text):
    with pytest.raises(InputError, match=r"'support' must be counts, unit, binary, .* got '"):
        parse_support(text)


def test_a_product_has_parts_that_are_none_themselves():
    for parts in ((), (TABLE,), (Real(), "real")):
        with pytest.raises(InputError, match="'parts' must be a support per column"):
            Product(parts)
    assert Product([Real()]) == Product((Real(),))


@pytest.mark.parametrize("support", SUPPORTS[:-2], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_support_holds_its_extremes_and_nothing_outside(support, dtype):
    for value in extremes(support):
        assert support.contains(torch.tensor([0.0, value], dtype=dtype))
    for value in outside(support):
        assert not support.contains(torch.tensor([0.0, value], dtype=dtype))
    assert support.contains(torch.zeros(0))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integers_are_checked_as_they_are(dtype):
    x = torch.tensor([0, 1], dtype=dtype)
    assert all(support.contains(x) for support in SUPPORTS[:-2])
    if dtype != torch.bool:
        assert not Binary().contains(2 * x)
        assert not Discrete(5).contains(5 * x)
        assert Counts().contains(200 * x)
        assert not Unit().contains(2 * x)


def test_a_product_looks_at_each_column():
    row = torch.tensor([[-3.5, 1.0, 4.0, 900.0, 0.25]])
    assert TABLE.contains(row)
    assert not TABLE.contains(row[:, :4])
    assert not TABLE.contains(torch.tensor(1.0))
    for j, bad in ((0, torch.inf), (1, 2.0), (2, 5.0), (3, 0.5), (4, 1.5)):
        wrong = row.clone()
        wrong[0, j] = bad
        assert not TABLE.contains(wrong)


def test_nats_are_those_of_a_probability_where_every_column_is_discrete():
    assert [support.is_discrete for support in TABLE.parts] == [False, True, True, True, False]
    assert not TABLE.is_discrete
    assert Product((Binary(), Counts())).is_discrete


COUNTS = np.array([[0, 7], [300, 2], [0, 5]])


@pytest.mark.parametrize("dtype", ["u1", "i8", "f4", "f8"])
def test_counts_and_shares_are_admitted_when_they_are_declared(dtype):
    counts = np.minimum(COUNTS, 200).astype(dtype)
    rows = as_rows(counts, "t", support=Counts())
    assert (rows.support, rows.x.dtype) == (Counts(), torch.float32)
    assert np.array_equal(rows.x.numpy(), counts)
    shares = (COUNTS > 4).astype(dtype)
    assert as_rows(shares, "t", support=Unit()).x.dtype == torch.float32
    assert as_rows(shares, "t").support == Binary()  # detection never says unit


def test_a_table_is_admitted_column_by_column():
    x = np.array([[-1.5, 1, 4, 300, 0.5], [2.5, 0, 0, 0, 1.0]])
    rows = as_rows(x, "t", support=TABLE)
    assert rows.support == TABLE
    assert np.array_equal(rows.x.numpy(), x.astype(np.float32))
    constant = as_rows(np.repeat(x[:1], 3, 0), "t", support=TABLE, column_names=list("abcde"))
    assert "column 'b'" in constant.warnings[0]


@pytest.mark.parametrize(
    ("array", "support", "words"),
    [
        (COUNTS - 1, Counts(), "counts for values from -1 to 299"),
        (COUNTS + 0.5, Counts(), "counts for fractional values"),
        (COUNTS * 2.0**20, Counts(), "counts for values from 0 to 3.14573e.08"),
        (COUNTS, Unit(), "unit for values from 0 to 300"),
        (COUNTS / 200, Unit(), "unit for values from 0 to 1.5"),
        (COUNTS / 300 - 0.1, Unit(), "unit for values from -0.1"),
        (COUNTS, Product((Counts(), Binary())), "every value of t, column 1, got binary for"),
        (COUNTS, Product((Counts(),)), "one part per column of t, .* shape 2, got 1 parts"),
        (np.zeros((5, 4, 4)), Product((Real(),) * 4), "shape 1×4×4, got 4 parts"),
    ],
)
def test_values_that_do_not_fit_are_refused(array, support, words):
    with pytest.raises(InputError, match=f"'support' must be .*{words}"):
        as_rows(array, "t", support=support)


def test_a_refusal_names_the_column():
    with pytest.raises(InputError, match=r"column 'b', got unit for values from 2 to 7; or say"):
        as_rows(COUNTS, "t", support=Product((Counts(), Unit())), column_names=["a", "b"])
