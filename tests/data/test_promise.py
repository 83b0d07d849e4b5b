"""What every source promises, whatever it is made of and wherever its examples lie."""

from __future__ import annotations

import pytest
import torch

from lowerbound.build import MODELS, create_model
from lowerbound.config import TrainingConfig
from lowerbound.data import InMemorySplit, load_data
from lowerbound.distributions import Binary
from lowerbound.engine import Engine
from lowerbound.errors import InputError
from lowerbound.evaluation import evaluate
from lowerbound.evaluation.judge import Judge, subset
from lowerbound.pictures import draw_pictures
from lowerbound.training import fit_model
from tests.data.sources import KINDS, LABELS, NUM, PIXELS, PLACES, TABLE, load, numbers, written
from tests.models.test_contract import SMALL

PARTS = ("train", "validation", "test")
WITHOUT_LABELS = ("table", "pixels")


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    """The optional library unpacks into a cache: here one of the test's own."""
    try:
        import datasets
    except ImportError:
        return
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=PLACES)
def source(request, kind, tmp_path):
    return load(kind, tmp_path, request.param)


def test_the_splits_are_a_partition(source):
    sizes = [len(source.split(part)) for part in PARTS]
    assert sizes == [48, 6, 6]
    found = [n for part in PARTS for n in numbers(source.split(part)[slice(None)][0])]
    assert sorted(found) == list(range(NUM))


def test_an_example_is_what_was_written(source, kind):
    x, context = source.train[torch.tensor([7, 3, 7, 0])]
    assert x.shape == (4, *source.event_shape)
    assert source.support.contains(x)
    rows = numbers(x)
    written = TABLE[rows] if "table" in kind else PIXELS[rows][:, None]
    assert torch.equal(x, torch.from_numpy(written))
    if kind in WITHOUT_LABELS:
        assert context is None
        assert source.context is None
    else:
        assert context.tolist() == LABELS[rows].tolist()
        assert source.train.labels[[7, 3, 7, 0]].tolist() == context.tolist()
        assert source.context.num_classes == 3


def test_indices_slices_and_masks_mean_the_same(source):
    whole, contexts = source.train[slice(None)]
    mask = torch.zeros(48, dtype=torch.bool)
    mask[[2, 5, 40]] = True
    for indices in (torch.tensor([2, 5, 40]), mask):
        x, context = source.train[indices]
        assert torch.equal(x, whole[[2, 5, 40]])
        assert context is None or torch.equal(context, contexts[[2, 5, 40]])
    assert torch.equal(source.train[slice(40, 100)][0], whole[40:])
    assert len(source.train[slice(0, 0)][0]) == 0
    assert numbers(source.train.take(torch.tensor([9, 1]))[slice(None)][0]) == numbers(
        whole[[9, 1]]
    )


def test_without_randomness_a_draw_is_the_example(source):
    assert not source.train.is_random
    indices = torch.tensor([1, 4])
    x, _ = source.train.draw(indices, torch.Generator())
    assert torch.equal(x, source.train[indices][0])


def test_only_what_is_in_memory_has_an_x(source):
    for part in PARTS:
        split = source.split(part)
        assert hasattr(split, "x") == split.in_memory == isinstance(split, InMemorySplit)
    if not source.train.in_memory:
        with pytest.raises(InputError, match="is read from the disk and has no x"):
            _ = source.train.x


def test_the_disk_gives_what_memory_gives(kind, tmp_path):
    spec = written(kind, tmp_path)
    memory, disk = (load_data(spec, limits=PLACES[p], seed=3) for p in ("memory", "disk"))
    assert (memory.train.in_memory, disk.train.in_memory) == (True, False)
    for name in ("event_shape", "support", "context", "column_names", "name"):
        assert getattr(memory, name) == getattr(disk, name), name
    for part in PARTS:
        ours, theirs = disk.split(part)[slice(None)], memory.split(part)[slice(None)]
        assert torch.equal(ours[0], theirs[0])
        assert ours[0].dtype == theirs[0].dtype
        assert ours[1] is None or torch.equal(ours[1], theirs[1])
    again = load_data(spec, limits=PLACES["disk"], seed=3)
    assert disk.fingerprint == again.fingerprint
    assert len(disk.fingerprint) == 64


@pytest.mark.parametrize("how", ["dynamic", "static", "threshold"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["pixels", "folder", "tar"])
def test_binarisation(kind, place, how, tmp_path):
    source = load(kind, tmp_path, place, binarize=how)
    assert source.support == Binary()
    assert source.train.is_random == (how == "dynamic")
    indices = torch.arange(48)
    fixed, _ = source.train[indices]
    assert set(fixed.unique().tolist()) == {0, 1}
    # A fixed draw depends on the example alone, not on what else is asked for.
    assert torch.equal(source.train[torch.tensor([30, 2])][0], fixed[[30, 2]])
    draws = [source.train.draw(indices, torch.Generator().manual_seed(s))[0] for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2]) == (how != "dynamic")
    (tmp_path / "again").mkdir()
    levels = load(kind, tmp_path / "again", "memory").train.x
    if how == "threshold":
        assert torch.equal(fixed, (levels > 127).to(torch.uint8))
    else:  # P(1) = level / 255, so 0 stays 0 and the mean is the mean level: 5 sigma
        assert not fixed[levels == 0].any()
        assert (
            abs(fixed.double().mean() - levels.double().mean() / 255)
            < 5 * 0.5 / len(fixed.flatten()) ** 0.5
        )
    assert not source.test.is_random


NARROW = {"mixture": {}, "hvae": {"latent_dims": (2, 2)}, "diffusion": {}}


def needs_labels(name: str) -> bool:
    return name == "lda" or MODELS[name].context == "always"


@pytest.mark.parametrize("kind", ["table", "pixels"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_learns_from_a_disk_and_is_judged(name, kind, tmp_path):
    source = load("folder" if needs_labels(name) else kind, tmp_path, "disk")
    options = {**SMALL.get(name, {}), **NARROW.get(name, {"latent_dim": 2})}
    model = create_model(name, source, **options)
    fit_model(model, source, TrainingConfig(steps=3, validations=1, batch_size=16))
    result = evaluate(model, source, num_samples=5, ais=2 if name in ("vae", "cvae") else 0)
    assert result["num_examples"] == 6
    assert any("read from the disk" in note for note in result["notes"])
    if name in ("vae", "cvae"):
        draw_pictures(model, source, tmp_path, [])


@pytest.mark.parametrize("kind", ["table", "pixels"])
@pytest.mark.parametrize("name", MODELS)
def test_the_disk_is_judged_as_memory_is(name, kind, tmp_path):
    """The same examples, so the same scales, fits and nats, to rounding."""
    if needs_labels(name):
        kind = "folder"
    spec = written(kind, tmp_path)
    options = {**SMALL.get(name, {}), **NARROW.get(name, {"latent_dim": 2})}
    results = []
    for place in PLACES.values():
        source = load_data(spec, limits=place)
        model = create_model(name, source, **options)
        model.fit_exactly(source)
        results.append(evaluate(model, source, num_samples=5))
    memory, disk = results
    for key in ("bound", "log_likelihood", "prior_monte_carlo"):
        if memory[key] is not None:
            assert disk[key]["value"] == pytest.approx(memory[key]["value"], rel=1e-4), key
    errors = [r["reconstruction_mse"] or 0.0 for r in results]
    assert errors[1] == pytest.approx(errors[0], rel=1e-4)
    nats = [r["baselines"].get("ppca", {}).get("log_likelihood", 0.0) for r in results]
    assert nats[1] == pytest.approx(nats[0], rel=1e-6)


def test_the_judge_takes_the_same_rows_from_either(tmp_path):
    spec = written("pixels", tmp_path)
    sources = [load_data(spec, limits=place) for place in PLACES.values()]
    model = create_model("vae", sources[0], latent_dim=2, width=8)
    device = torch.device("cpu")
    for importance in (False, True):
        rows = [
            Judge(s.train, Engine(device), 20, num_samples=3, importance=importance)(model)
            for s in sources
        ]
        assert rows[0] == pytest.approx(rows[1])
    some = [subset(source.train, 20)[slice(None)][0] for source in sources]
    assert torch.equal(*some)
    assert numbers(some[0]) == sorted(numbers(some[0]))
