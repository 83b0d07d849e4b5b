"""Quantisers: nearest codes, straight-through gradients, and codebooks that follow their data."""

from __future__ import annotations

import pytest
import torch

from lowerbound._random import initialised_by
from lowerbound.errors import InputError
from lowerbound.nn import ScalarQuantiser, VectorQuantiser
from lowerbound.nn.quantisers import PATIENCE

YES = torch.tensor(True)


def vector_quantiser(*sizes, **kinds):
    """One whose first vectors are always the same."""
    with initialised_by(0):
        return VectorQuantiser(*sizes, **kinds)


QUANTISERS = {
    "vq": lambda: vector_quantiser(5, 3),
    "vq by gradient": lambda: vector_quantiser(5, 3, learned="gradient"),
    "rvq": lambda: vector_quantiser(5, 3, 4),
    "fsq": lambda: ScalarQuantiser((2, 3, 4)),
}


@pytest.fixture(params=QUANTISERS)
def quantiser(request):
    return QUANTISERS[request.param]()


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_codes_are_in_range_and_stand_for_the_vectors_that_are_given(quantiser):
    q = quantiser(draws(4, 6, 3))
    assert q.codes.shape == (4, 6, quantiser.codes_per_place)
    assert ((q.codes >= 0) & (q.codes < quantiser.num_codes)).all()
    torch.testing.assert_close(q.vectors, quantiser.vectors_of(q.codes))


def test_the_gradient_goes_straight_through(quantiser):
    z, weight = draws(4, 6, 3).requires_grad_(), draws(4, 6, 3, seed=1)
    (quantiser(z).vectors * weight).sum().backward()
    bend = 1 - z.detach().tanh().square() if isinstance(quantiser, ScalarQuantiser) else 1.0
    torch.testing.assert_close(z.grad, weight * bend)
    assert all(p.grad is None for p in quantiser.parameters())


def test_what_is_not_finite_has_codes_too(quantiser):
    z = draws(2, 3, 3)
    z[0, 0], z[0, 1], z[1] = torch.nan, torch.inf, -torch.inf
    codes = quantiser(z).codes
    assert ((codes >= 0) & (codes < quantiser.num_codes)).all()


def test_a_codebook_chooses_the_nearest_of_its_vectors():
    quantiser, z = vector_quantiser(7, 3), draws(5, 4, 3)
    distances = torch.cdist(z, quantiser.books[0].vectors)
    assert torch.equal(quantiser(z).codes.squeeze(-1), distances.argmin(-1))


def test_each_residual_codebook_quantises_what_is_left():
    quantiser, z = vector_quantiser(7, 3, 3), draws(5, 4, 3)
    codes, left, squares = quantiser(z).codes, z, []
    for book, chosen in zip(quantiser.books, codes.unbind(-1), strict=True):
        assert torch.equal(torch.cdist(left, book.vectors).argmin(-1), chosen)
        left = left - book.vectors[chosen]
        squares.append(left.square().mean((1, 2)))
    losses = quantiser(z).losses
    torch.testing.assert_close(losses["commitment"], sum(squares) / 3)
    assert set(losses) == {"commitment"}


def test_losses_pull_the_input_to_its_code_and_a_codebook_to_its_input():
    quantiser, z = vector_quantiser(5, 3, learned="gradient"), draws(2, 4, 3).requires_grad_()
    q, vectors = quantiser(z), quantiser.books[0].vectors
    (to_code,) = torch.autograd.grad(q.losses["commitment"].sum(), z, retain_graph=True)
    torch.testing.assert_close(to_code, 2 * (z - q.vectors).detach() / 12)
    given = torch.autograd.grad(q.losses["codebook"].sum(), [z, vectors], allow_unused=True)
    assert given[0] is None
    expected = torch.zeros_like(vectors)
    expected.index_add_(0, q.codes.flatten(), -to_code.flatten(0, 1))
    torch.testing.assert_close(given[1], expected)


@pytest.mark.parametrize("levels", [(2,), (3, 2), (8, 5, 5, 5), (4, 7)])
def test_every_scalar_code_stands_for_itself(levels):
    quantiser = ScalarQuantiser(levels)
    codes = torch.arange(quantiser.num_codes).reshape(1, -1, 1)
    vectors = quantiser.vectors_of(codes)
    assert len(vectors[0].unique(dim=0)) == quantiser.num_codes
    for i, num in enumerate(levels):
        torch.testing.assert_close(vectors[..., i].unique(), torch.linspace(-1, 1, num))
    inside = vectors.clamp(-1 + 1e-6, 1 - 1e-6)
    assert torch.equal(quantiser(torch.atanh(inside)).codes, codes)


def test_scalars_are_pulled_back_from_where_the_tanh_is_flat_and_nowhere_else():
    z = torch.tensor([[[1.4, -1.4, 0.0]], [[4.5, -3.5, 0.0]]])
    loss = ScalarQuantiser((5, 5, 5))(z).losses["commitment"]
    torch.testing.assert_close(loss, torch.tensor([0.0, (9.0 + 4.0) / 3]))


@pytest.mark.parametrize("levels", [(), (1,), (5, 1)])
def test_levels_below_two_are_refused(levels):
    with pytest.raises(InputError, match="'levels' must be one or more numbers of at least 2"):
        ScalarQuantiser(levels)


# --- codebooks that learn -----------------------------------------------------------------------


def clusters():
    """Ten places each around (±5, 0): two codes suffice."""
    z = 0.1 * draws(2, 10, 2)
    return z + torch.tensor([[[5.0, 0.0]], [[-5.0, 0.0]]])


def test_moving_averages_end_at_the_mean_of_what_chose_each_code():
    quantiser, z = vector_quantiser(2, 2, decay=0.9), clusters()
    quantiser.books[0].idle.zero_()  # as if set before
    quantiser.books[0].vectors.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    quantiser.books[0].sums.copy_(0.5 * quantiser.books[0].vectors)
    for step in range(300):
        quantiser.take_in(z, YES, step)
    torch.testing.assert_close(quantiser.books[0].vectors, z.mean(1))
    torch.testing.assert_close(quantiser.usage, torch.full((1, 2), 0.5))
    assert quantiser.facts() == pytest.approx({"codes_used": 2, "code_perplexity": 2})


def test_one_step_of_the_moving_averages_is_that_of_the_paper():
    quantiser, z = vector_quantiser(3, 2, decay=0.75), draws(4, 6, 2)
    book = quantiser.books[0]
    book.idle.zero_()
    counts, sums, codes = 24 * book.mass, 24 * book.sums, quantiser(z).codes.flatten()
    quantiser.take_in(z, YES, 0)
    for j in range(3):
        mine = z.flatten(0, 1)[codes == j]
        counts[j] = 0.75 * counts[j] + 0.25 * len(mine)
        sums[j] = 0.75 * sums[j] + 0.25 * mine.sum(0)
    torch.testing.assert_close(book.vectors, sums / counts.unsqueeze(1))


def test_the_first_step_sets_every_code_at_a_vector_of_its_batch():
    quantiser, z = vector_quantiser(6, 3, 2), draws(4, 5, 3)
    quantiser.take_in(z, YES, 0)
    first, second = (book.vectors for book in quantiser.books)
    assert (torch.cdist(first, z.flatten(0, 1)).amin(1) < 1e-5).all()
    assert len(first.unique(dim=0)) == 6
    left = z - first[torch.cdist(z, first).argmin(-1)]
    assert (torch.cdist(second, left.flatten(0, 1)).amin(1) < 1e-5).all()


@pytest.mark.parametrize("learned", ["ema", "gradient"])
def test_a_code_that_nothing_chooses_is_set_anew_after_a_while(learned):
    quantiser, z = vector_quantiser(3, 2, learned=learned, patience=5), clusters()
    book = quantiser.books[0]
    book.idle.zero_()
    with torch.no_grad():
        book.vectors.copy_(torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 1000.0]]))
        book.sums.copy_(book.vectors * book.mass.unsqueeze(1))
    for step in range(5):
        assert (book.vectors[2].norm() > 999) == (step < 5)
        quantiser.take_in(z, YES, step)
    assert torch.cdist(book.vectors[2:], z.flatten(0, 1)).min() < 1e-5
    assert book.idle.tolist() == [0, 0, 0]
    assert torch.cdist(book.vectors[:2], torch.tensor([[5.0, 0], [-5.0, 0]])).diagonal().max() < 1


def test_what_is_set_anew_follows_from_the_step_alone():
    found = []
    for step in (3, 3, 4):
        quantiser = vector_quantiser(6, 3)
        torch.randn(7)  # whatever else is drawn
        quantiser.take_in(draws(4, 5, 3), YES, step)
        found.append(quantiser.books[0].vectors)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_spoilt_step_leaves_no_trace(quantiser):
    quantiser.take_in(draws(4, 6, 3), YES, 0)
    before = {name: t.clone() for name, t in quantiser.state_dict().items()}
    quantiser.take_in(torch.full((4, 6, 3), torch.nan), torch.tensor(False), PATIENCE)
    quantiser.take_in(draws(4, 6, 3, seed=1), torch.tensor(False), PATIENCE)
    assert all(torch.equal(t, before[name]) for name, t in quantiser.state_dict().items())


def test_facts_count_the_codes_in_use(quantiser):
    assert quantiser.facts()["codes_used"] == 0
    for book in getattr(quantiser, "books", []):
        book.idle.zero_()  # as if set before, and never again
        book.patience = 10**9
    one = draws(1, 1, 3).expand(8, 6, 3)
    for step in range(20):
        quantiser.take_in(one, YES, step)
    facts = quantiser.facts()
    assert facts["codes_used"] == pytest.approx(1.0)
    assert facts["code_perplexity"] == pytest.approx(1.0, abs=1e-2)


def test_a_code_that_is_set_anew_does_not_count_as_used():
    quantiser = vector_quantiser(5, 2, patience=10)
    for step in range(1000):
        quantiser.take_in(torch.ones(8, 6, 2), YES, step)
    assert quantiser.facts()["codes_used"] < 5
