"""Damage: no byte that is not as it was written is ever believed, and what is whole is used."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter

import pytest
import torch
from safetensors.torch import load

from lowerbound.build import create_model
from lowerbound.cli import run_command_line
from lowerbound.config import TrainingConfig
from lowerbound.errors import CheckpointError, InputError
from lowerbound.run import RunConfig
from lowerbound.training import checkpoint, fit_model
from lowerbound.training.checkpoint import checkpoints_of, load_newest, save_checkpoint
from lowerbound.training.tensors import DTYPES, pieces_of
from tests.reliability.tiny import contents, small_state, tiny_source

FILES = (
    *("MANIFEST.json", "state.json", "model.safetensors", "average.safetensors"),
    *("optimizer.safetensors", "best.safetensors"),
)


@pytest.fixture
def run(tmp_path):
    """Two real checkpoints of a very small model: about 60 kilobytes each."""
    source = tiny_source()
    model = create_model("vae", source, latent_dim=2, width=8)
    config = TrainingConfig(steps=4, validations=2, precision="float32")
    fit_model(model, source, config, folder=tmp_path)
    assert [path.name for path in checkpoints_of(tmp_path)] == ["step-00000004", "step-00000002"]
    return tmp_path


def test_what_was_saved_is_loaded(tmp_path):
    assert load_newest(tmp_path / "nothing") == (None, [])
    for step in (10, 20):
        save_checkpoint(tmp_path, step, *small_state(step))
    found, rejected = load_newest(tmp_path)
    tensors, state = small_state(20)
    assert (found.state, rejected) == (state, [])
    assert found.tensors.keys() == tensors.keys()
    for name, group in tensors.items():
        assert {k: v.tolist() for k, v in found.tensors[name].items()} == {
            k: v.tolist() for k, v in group.items()
        }


def test_tensors_of_every_kind_are_read_back_by_the_library_of_the_format():
    chosen = torch.Generator().manual_seed(0)
    group = {
        str(dtype): torch.randint(0, 2, (3, 5), generator=chosen).to(dtype) for dtype in DTYPES
    }
    group |= {
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 4),
        'a "name"\n é': torch.ones(1),
    }
    group |= {"turned": group["torch.float32"].t(), "tied": group["torch.float32"]}
    group["learned"] = torch.nn.Parameter(torch.ones(7))
    loaded = load(b"".join(pieces_of(group)))
    assert loaded.keys() == group.keys()
    for name, tensor in group.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(loaded[name], tensor)
    assert load(b"".join(pieces_of({}))) == {}
    content = b"".join(pieces_of(group))
    begin = 8 + int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8:begin]).items():  # where a reader may map them
        assert (begin + entry["data_offsets"][0]) % group[name].element_size() == 0


def byte_class(name, content, at):
    """What a byte of a file is: the kinds that a reader treats differently."""
    if not name.endswith(".safetensors"):
        return name
    if at < 8:
        return "length"
    return "header" if at < 8 + int.from_bytes(content[:8], "little") else "tensor"


def test_two_thousand_flipped_bits_are_all_seen_named_and_survived(run):
    newest, chosen, classes = checkpoints_of(run)[0], random.Random(0), Counter()
    whole = {name: (newest / name).read_bytes() for name in FILES}
    assert set(whole) == {path.name for path in newest.iterdir()}
    places = {}
    for name, content in whole.items():
        for at in range(len(content)):
            places.setdefault(byte_class(name, content, at), []).append((name, at))
    for number in range(2000):
        kind = sorted(places)[number % len(places)]
        name, at = chosen.choice(places[kind])
        damaged = bytearray(whole[name])
        damaged[at] ^= 1 << chosen.randrange(8)
        (newest / name).write_bytes(damaged)
        found, rejected = load_newest(run)
        assert found.path.name == "step-00000002", (name, at)
        assert len(rejected) == 1
        assert newest.name in rejected[0]
        assert name in rejected[0]
        assert len(rejected[0]) < 300
        (newest / name).write_bytes(whole[name])
        classes[kind] += 1
    assert set(classes) == {"MANIFEST.json", "state.json", "length", "header", "tensor"}
    assert load_newest(run)[0].path == newest


@pytest.mark.nightly
def test_one_flipped_bit_in_every_byte(run):
    newest, count = checkpoints_of(run)[0], 0
    for path in sorted(newest.iterdir()):
        whole = path.read_bytes()
        for at in range(len(whole)):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << (at % 8)
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=path.name):
                checkpoint._verified(newest)
            count += 1
        path.write_bytes(whole)
    print(f"\n{count:,} bytes of a checkpoint, one bit flipped in each: all detected")


def lengths(name, size):
    """Where to cut a file: everywhere in what describes, every 512 bytes in what is described."""
    step = 1 if name.endswith(".json") else 512
    return sorted({*range(0, size, step), *range(min(size, 200)), size - 1})


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_or_filled_with_zeros_is_seen(run, name):
    newest = checkpoints_of(run)[0]
    path = newest / name
    whole = path.read_bytes()
    for length in lengths(name, len(whole)):
        for damaged in (whole[:length], whole[:length] + bytes(len(whole) - length)):
            if damaged == whole:
                continue  # tensors may end in zeros of their own
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=name):
                checkpoint._verified(newest)
    path.write_bytes(whole + b"\0")
    found, rejected = load_newest(run)
    assert found.path.name == "step-00000002"
    assert name in rejected[0]


def swap(newest, older, name):
    for a, b in ((newest / name, newest / "x"), (older / name, newest / name)):
        a.rename(b)
    (newest / "x").rename(older / name)


DAMAGES = {
    "missing": lambda newest, older, name: (newest / name).unlink(),
    "empty": lambda newest, older, name: (newest / name).write_bytes(b""),
    "extra": lambda newest, older, name: (newest / f"{name}.old").write_bytes(b"x"),
    "extra folder": lambda newest, older, name: (newest / f"{name}.d").mkdir(),
    "link": lambda newest, older, name: [
        (newest / name).rename(newest.parents[1] / name),
        (newest / name).symlink_to(newest.parents[1] / name),
    ],
    "broken link": lambda newest, older, name: [
        (newest / name).unlink(),
        (newest / name).symlink_to("nowhere"),
    ],
    "folder": lambda newest, older, name: [(newest / name).unlink(), (newest / name).mkdir()],
    "copied": lambda newest, older, name: shutil.copy(older / name, newest / name),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_kind_of_damage_falls_back(tmp_path, damage, name):
    for step in (10, 20):
        save_checkpoint(tmp_path, step, *small_state(step))
    newest, older = checkpoints_of(tmp_path)
    if damage == "copied" and (older / name).read_bytes() == (newest / name).read_bytes():
        return
    DAMAGES[damage](newest, older, name)
    found, rejected = load_newest(tmp_path)
    assert found.state == {"step": 10}
    assert len(rejected) == 1
    assert newest.name in rejected[0]


@pytest.mark.parametrize("name", FILES)
def test_files_swapped_between_two_checkpoints_condemn_both(tmp_path, name):
    for step in (10, 20):
        save_checkpoint(tmp_path, step, *small_state(step))
    newest, older = checkpoints_of(tmp_path)
    same = (older / name).read_bytes() == (newest / name).read_bytes()
    swap(newest, older, name)
    if same:
        assert load_newest(tmp_path)[0].state == {"step": 20}
        return
    with pytest.raises(CheckpointError, match=r"step-00000020.*step-00000010"):
        load_newest(tmp_path)


def test_a_whole_checkpoint_under_another_name_or_linked_is_not_believed(tmp_path):
    for step in (10, 20):
        save_checkpoint(tmp_path, step, *small_state(step))
    newest, older = checkpoints_of(tmp_path)
    shutil.copytree(older, tmp_path / "checkpoints" / "step-00000030")
    newest.rename(tmp_path / "elsewhere")
    newest.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "checkpoints" / "step-00000040").mkdir()
    (tmp_path / "checkpoints" / "step-00000050").write_bytes(b"")
    found, rejected = load_newest(tmp_path)
    assert found.state == {"step": 10}
    assert [text.split("'")[1] for text in rejected] == [
        f"step-{step:08d}" for step in (50, 40, 30, 20)
    ]


def test_a_newer_format_is_refused_and_not_called_damaged(tmp_path):
    path = save_checkpoint(tmp_path, 10, *small_state(10)) / "MANIFEST.json"
    body = json.loads(path.read_text())
    body.pop("sha256")
    body["format_version"] = 99
    path.write_text(json.dumps({**body, "sha256": checkpoint._digest(body)}))
    with pytest.raises(InputError, match="format_version 1 or older, got 99"):
        load_newest(tmp_path)


def test_a_member_that_leads_out_of_the_folder_is_not_read(tmp_path):
    path = save_checkpoint(tmp_path, 10, *small_state(10)) / "MANIFEST.json"
    body = json.loads(path.read_text())
    body.pop("sha256")
    for name in ("../../secret", "/etc/hostname", ".", ""):
        files = {**body["files"], name: {"size": 1, "sha256": ""}}
        lying = {**body, "files": files}
        path.write_text(json.dumps({**lying, "sha256": checkpoint._digest(lying)}))
        with pytest.raises(CheckpointError):
            load_newest(tmp_path)


def test_when_all_are_bad_nothing_starts_from_scratch_and_nothing_is_touched(run, capsys):
    config = RunConfig(steps=4, validations=2, options={"latent_dim": 2, "width": 8})
    (run / "config.yaml").write_text(config.to_yaml())
    (run / "run.lock").touch()
    for path in checkpoints_of(run):
        (path / "model.safetensors").write_bytes(b"")
    (checkpoints_of(run)[0] / "state.json").unlink()
    before = contents(run)
    assert run_command_line(["train", "--resume", str(run), "--quiet"]) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    for words in ("step-00000004", "MANIFEST.json does not", "step-00000002", "model.safet"):
        assert words in err
    assert contents(run) == before
