"""Kinds of context: what they refuse, what says nothing, and the way through a file and back."""

from __future__ import annotations

import json
import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.data import Classes, Mask, Rows, Vector, context_from, load_data, make_source
from lowerbound.data.masked import masked_rows
from lowerbound.distributions import Real
from lowerbound.errors import InputError
from lowerbound.training.tracking import few_pictures

SHAPE = (1, 4, 4)
KINDS = [Classes(3), Classes(2, ("cat", "dog")), Vector(3), Mask(), Mask(2)]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


@each_kind
def test_a_context_is_described_by_plain_values_and_made_again(kind):
    assert context_from(json.loads(json.dumps(kind.document()))) == kind
    for bad in ({"kind": "moods"}, {"kind": kind.kind, "colour": 1}, {}, 3):
        with pytest.raises(InputError, match="'context' cannot be read"):
            context_from(bad)


@each_kind
def test_what_says_nothing_is_itself_a_context(kind):
    nothing = kind.unknown(5, SHAPE)
    assert len(nothing) == 5
    kind.check(nothing, SHAPE)


@pytest.mark.parametrize(
    ("kind", "context", "message"),
    [
        (Classes(3), torch.tensor([0, 4]), "one of 3 classes: 0, 1, 2, got 4"),
        (Classes(3), torch.tensor([0, -1]), "one of 3 classes: 0, 1, 2, got -1"),
        (Classes(3), torch.zeros(2), "class indices, one integer per example"),
        (Vector(3), torch.zeros(2, 4), "3 numbers per example, got 4"),
        (Vector(3), torch.zeros(2), "3 numbers per example, got one number"),
        (Vector(1), torch.tensor([[0.0], [-math.inf]]), "finite numbers, got infinite ones"),
        (Mask(), torch.zeros(2, *SHAPE), "its mask, 2×1×4×4, got 1×4×4"),
        (Mask(), torch.full((2, 2, *SHAPE), 0.5), "a mask of zeros and ones, got values from 0.5"),
    ],
)
def test_what_is_no_context_of_a_kind_is_refused(kind, context, message):
    with pytest.raises(InputError, match=f"'context' must be .*{message}"):
        kind.check(context, SHAPE)


def test_other_data_need_the_same_kind_and_width():
    for kind, given, message in (
        (Vector(3), Vector(4), "'context' must be a vector of 3 numbers for this 'cvae', got a"),
        (Vector(3), Classes(3), "'condition' must be vector for this 'cvae', got labels"),
        (Mask(1), None, "'mask' must be in the data of a 'cvae', got none"),
    ):
        with pytest.raises(InputError, match=message):
            kind.require(given, "cvae")


def test_pictures_of_a_training_complete_what_the_validation_examples_show():
    source = load_data("digits", condition="mask:2")
    model = create_model("cvae", source, latent_dim=2, width=8)
    shown = few_pictures(model, source)
    assert set(shown) == {"samples", "reconstructions"}
    x = source.validation.x[0, 0, :, :4].float() * 255 / 16  # the left half of the first
    assert (shown["samples"][3:48:6, 3:24:6, 0] == x.round().byte().numpy()).all()


@pytest.mark.parametrize("size", [(28, 28), (5, 7)], ids=str)
def test_the_quadrants_are_those_that_completion_is_published_for(size):
    """One: the lower left; two: the left half; three: all but the lower right."""
    (height, width), x = size, torch.ones(4, 1, *size)
    h, w = height // 2, width // 2
    for number, parts in {1: [(1, 0)], 2: [(0, 0), (1, 0)], 3: [(0, 0), (0, 1), (1, 0)]}.items():
        expected = torch.zeros(size)
        for lower, right in parts:
            rows, columns = (
                slice(h, None) if lower else slice(h),
                slice(w, None) if right else slice(w),
            )
            expected[rows, columns] = 1
        observed, mask = masked_rows(x, Mask(number)).unbind(1)
        assert torch.equal(mask, expected.expand_as(mask))
        assert torch.equal(observed, mask)


def test_rows_with_vectors_beside_them_are_a_source_with_that_context():
    x, beside = torch.zeros(20, 2), torch.arange(60.0).reshape(20, 3)
    source = make_source(Rows(x=x, support=Real(), name="x", labels=beside))
    assert source.context == Vector(3)
    given = [source.split(part)[slice(None)][1] for part in ("train", "validation", "test")]
    assert torch.equal(torch.cat(given).sort(0).values, beside)
    for bad in (beside[:, 0], torch.full((20, 1), math.nan)):
        with pytest.raises(InputError, match="'labels' must be integers"):
            make_source(Rows(x=x, support=Real(), name="x", labels=bad))


def test_numbers_that_are_not_known_are_for_models_that_were_trained_without_some():
    source = make_source(
        Rows(x=torch.zeros(20, 2), support=Real(), name="x", labels=torch.ones(20, 1))
    )
    given = torch.full((3, 1), math.nan)
    for dropout in (0.0, 0.1):
        model = create_model("cvae", source, latent_dim=2, width=8, label_dropout=dropout)
        if dropout:
            assert model.bound(torch.zeros(3, 2), given).value.isfinite().all()
            continue
        with pytest.raises(InputError, match="'context' must be 1 numbers, got NaN"):
            model.bound(torch.zeros(3, 2), given)
