"""Batches are functions of the step: of nothing that came before, and of no thread or device."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from lowerbound._random import generator_for, permutation
from lowerbound.data import InMemorySplit, load_data
from lowerbound.errors import InputError
from lowerbound.training.batches import AHEAD, BLOCK, Batches
from tests.data.sources import PLACES, numbers, written

NUM, SEED = 700, 5
LEVELS = torch.arange(NUM * 4).reshape(NUM, 1, 2, 2).remainder(256).to(torch.uint8)
LABELS = torch.arange(NUM)


def split(random: bool) -> InMemorySplit:
    """Examples whose label is their number; ``x`` is a binarisation where they are random."""
    return InMemorySplit((LEVELS > 127).to(torch.uint8), LABELS, LEVELS if random else None)


@pytest.fixture(params=[False, True], ids=["fixed", "random"])
def random(request):
    return request.param


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_an_epoch_is_a_permutation_by_seed_and_epoch():
    batches = Batches(split(False), 64, SEED)
    assert batches.num_batches == 10
    for epoch in (0, 1, 3):
        rows = [batches(epoch * 10 + i)[1] for i in range(10)]
        order = permutation(NUM, "epoch", SEED, epoch)
        assert torch.equal(torch.cat(rows), order[:640])
    x, labels = batches(7)
    assert torch.equal(x, (LEVELS[labels] > 127).to(torch.uint8))


def test_a_batch_does_not_depend_on_those_before_it(random):
    with Batches(split(random), 200, SEED) as one, Batches(split(random), 200, SEED) as other:
        forwards = [one(step) for step in range(8)]
        for step in (6, 2, 7, 0):
            assert same(other(step), forwards[step])
    assert not same(Batches(split(random), 200, SEED + 1)(0), forwards[0])


def test_the_randomness_is_that_of_blocks_of_the_global_batch():
    x, labels = Batches(split(True), 300, SEED)(1)
    order = permutation(NUM, "epoch", SEED, 0)[300:600]
    assert torch.equal(labels, order)
    for block, first in enumerate(range(0, 300, BLOCK)):
        rows = order[first : min(first + BLOCK, 300)]
        drawn, _ = split(True).draw(rows, generator_for("data", SEED, 1, block))
        assert torch.equal(x[first : first + BLOCK], drawn)


@pytest.mark.parametrize("world", [2, 3, 4, 6])
@pytest.mark.parametrize("size", [12, 120, 300, 384])
def test_the_shares_of_all_devices_are_the_batch(random, world, size):
    whole = Batches(split(random), size, SEED)
    shares = [Batches(split(random), size, SEED, rank=r, world=world) for r in range(world)]
    for step in range(3):
        parts = [share(step) for share in shares]
        assert {len(x) for x, _ in parts} == {size // world}
        joined = tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))
        assert same(joined, whole(step))


def test_a_share_draws_every_block_that_it_needs_as_a_whole(monkeypatch):
    """On an accelerator what is drawn first depends on how much is drawn."""
    sizes = []
    drawn = InMemorySplit.draw

    def draw(self, indices, generator):
        sizes.append(len(indices))
        return drawn(self, indices, generator)

    monkeypatch.setattr(InMemorySplit, "draw", draw)
    for rank, expected in ((0, [128]), (1, [128, 128]), (2, [128, 44])):
        sizes.clear()
        Batches(split(True), 300, SEED, rank=rank, world=3)(0)
        assert sizes == expected


@pytest.mark.parametrize("how", ["none", "dynamic", "static"])
@pytest.mark.parametrize("kind", ["pixels", "tar"])
def test_threads_change_nothing(kind, how, tmp_path):
    spec = written(kind, tmp_path)
    memory, disk = (load_data(spec, limits=p, binarize=how).train for p in PLACES.values())
    with Batches(disk, 16, SEED) as batches:
        ahead = [batches(step) for step in range(10)]  # three batches an epoch
        again = batches(4)  # back, as a resumed run may go
    for step, (x, labels) in enumerate(ahead):
        rows = permutation(48, "epoch", SEED, step // 3)[step % 3 * 16 :][:16]
        assert labels is None or torch.equal(labels, memory.labels[rows])
        if how == "none":
            assert torch.equal(x, memory.x[rows])
        else:
            expected = disk.draw(rows, generator_for("data", SEED, step, 0))[0]
            assert torch.equal(x, expected)
    assert same([again[0]], [ahead[4][0]])
    if how != "static":  # whose fixed draws are by example on a disk, and at once in memory
        assert torch.equal(Batches(memory, 16, SEED)(5)[0], ahead[5][0])


def test_memory_makes_no_thread(digits):
    before = threading.active_count()
    batches = Batches(digits.train, 64, SEED)
    batches(0)
    assert threading.active_count() == before
    batches.close()


class Slow(InMemorySplit):
    """A split that counts what is asked of it, and fails where it is told to."""

    in_memory = False
    asked: list
    failing = -1

    def __getitem__(self, indices):
        self.asked.append(numbers(self.x[indices]))
        if self.failing in self.asked[-1]:
            raise InputError("'row' must be readable")
        return super().__getitem__(indices)

    def to(self, device):
        return self


def slow() -> Slow:
    made = Slow(torch.arange(40)[:, None])
    object.__setattr__(made, "asked", [])
    return made


def test_the_next_batches_are_read_ahead_and_no_more():
    made = slow()
    with Batches(made, 4, SEED) as batches:
        batches(0)
        time.sleep(0.3)
        assert len(made.asked) == AHEAD
        batches(1)
        time.sleep(0.3)
        assert len(made.asked) == AHEAD + 1
        batches(20)  # elsewhere: what was read for nothing is dropped
        assert len(batches._coming) == AHEAD - 1


def test_an_error_is_raised_at_its_own_step_and_threads_end():
    made = slow()
    order = permutation(40, "epoch", SEED, 0)
    object.__setattr__(made, "failing", int(order[9]))  # in the third batch of four
    before = threading.active_count()
    with Batches(made, 4, SEED) as batches:
        for step in (0, 1):
            assert numbers(batches(step)[0]) == order[4 * step :][:4].tolist()
        with pytest.raises(InputError, match="'row' must be readable"):
            batches(2)
        assert numbers(batches(3)[0]) == order[12:16].tolist()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError):
        batches(4)


def test_few_examples_make_a_smaller_batch():
    assert Batches(split(False), 1000, SEED).batch_size == NUM
    assert Batches(split(False), 1000, SEED, world=3).batch_size == 699


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "'batch_size' must be at least 1, got 0"),
        ((10, 0, "cpu", 0, 3), "'batch_size' must be a multiple of the 3 devices, got 10"),
        ((12, 0, "cpu", 3, 3), "'rank' must be from 0 to 2, got 3"),
    ],
)
def test_impossible_shares_are_refused(arguments, message):
    size, seed, device, rank, world = (*arguments, *(0, "cpu", 0, 1)[len(arguments) - 1 :])
    with pytest.raises(InputError, match=message):
        Batches(split(False), size, seed, device, rank=rank, world=world)
