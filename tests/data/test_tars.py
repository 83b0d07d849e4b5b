"""Archives in WebDataset's layout: members by key, labels by ending, damage by name."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from lowerbound.data import load_data, load_rows
from lowerbound.distributions import Discrete
from lowerbound.errors import InputError
from tests.data.sources import LABELS, NUM, ON_DISK, PIXELS, archives, png


def archive(path, members):
    """A tar file of (name, bytes) members."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("limits", [None, ON_DISK])
def test_a_file_or_a_folder_of_files(limits, tmp_path):
    folder = archives(tmp_path)
    whole = load_rows(folder)
    assert torch.equal(whole.x, torch.from_numpy(PIXELS[:, None]))
    assert whole.support == Discrete(256)
    assert whole.labels.tolist() == LABELS.tolist()
    one = load_data(tmp_path / "0.tar", limits=limits)
    assert one.context.num_classes == 3
    found = torch.cat([one.split(s)[slice(None)][0] for s in ("train", "validation", "test")])
    assert sorted(found[:, 0, 0, 0].tolist()) == list(range(NUM // 2))


def test_members_of_a_key_belong_together_and_others_are_passed_over(tmp_path):
    members = []
    for i in range(12):
        about = json.dumps({"kind": "ab"[i % 2], "width": 8}).encode()
        members += [
            (f"deep/er/{i}.seg.png", png(20)),  # another ending than that of the first sample
            (f"deep/er/{i}.json", about),
            (f"deep/er/{i}.size", b" 8\n"),
        ]
    members += [("README", b"no dot"), ("notes.txt", b"no image"), (".hidden", b"")]
    archive(tmp_path / "x.tar", members)
    rows = load_rows(tmp_path / "x.tar")
    assert len(rows.x) == 12
    assert rows.labels is None
    assert load_rows(tmp_path / "x.tar", labels="kind").class_names == ("a", "b")
    assert load_rows(tmp_path / "x.tar", labels="kind").labels.tolist() == [0, 1] * 6
    assert load_rows(tmp_path / "x.tar", labels="size").class_names == ("8",)
    assert load_rows(tmp_path / "x.tar", image_size=4).x.shape == (12, 1, 4, 4)


def test_labels_that_are_not_there_are_refused_by_key(tmp_path, refused):
    members = [(f"{i}.png", png(i)) for i in range(3)]
    archive(tmp_path / "a.tar", [*members, ("3.png", png(3)), ("3.cls", b"1")])
    refused(tmp_path / "a.tar", "a member cls of every key", "none of 0")
    archive(tmp_path / "b.tar", members)
    refused(tmp_path / "b.tar", "a member kind of every key", labels="kind")
    archive(tmp_path / "c.tar", [*members[:1], ("0.json", b'{"a": 1}')])
    refused(tmp_path / "c.tar", "a key of every json", "0.json without it", labels="b")
    archive(tmp_path / "d.tar", [*members[:1], ("0.json", b"[[[")])
    refused(tmp_path / "d.tar", "0.json without it", labels="b")
    archive(tmp_path / "e.tar", [*members[:1], ("0.cls", b"\xff\xfe")])
    refused(tmp_path / "e.tar", "'0.cls' must be text in UTF-8")
    archive(tmp_path / "f.tar", [*members[:1], ("0.cls", bytes(2**21))])
    refused(tmp_path / "f.tar", "0.cls", "at most")


def test_what_is_no_archive_of_images_is_refused(tmp_path, refused):
    archive(tmp_path / "a.tar", [("0.txt", b"x")])
    refused(tmp_path / "a.tar", "an archive of images", "none")
    (tmp_path / "b.tar").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    refused(tmp_path / "b.tar", "a whole .tar file", "unpacked to .tar")
    (tmp_path / "c.tar").write_bytes(b"just some text" * 100)
    refused(tmp_path / "c.tar", "a whole .tar file")
    (tmp_path / "d.tar").write_bytes(b"")
    refused(tmp_path / "d.tar", "d.tar")


@pytest.mark.parametrize("limits", [None, ON_DISK])
def test_bad_members_are_named_behind_their_archive(limits, tmp_path):
    archive(tmp_path / "2.tar", [("100.png", b""), ("101.png", b"text"), ("102.png", png(0))])
    archive(tmp_path / "3.tar", [(f"2{i:02}.png", png(i)) for i in range(12)])
    words = r"2 bad of 15: 2.tar/100.png \(empty\), 2.tar/101.png \(not an image\)"
    with pytest.raises(InputError, match=words):
        load_data(tmp_path, limits=limits)
    source = load_data(tmp_path, limits=limits, on_bad="skip")
    assert sum(len(source.split(s)) for s in ("train", "validation", "test")) == 13


def test_an_archive_that_is_cut_off_is_refused_by_name(tmp_path):
    archives(tmp_path)
    path = tmp_path / "1.tar"
    whole = path.read_bytes()
    for size in range(600, len(whole), 777):
        path.write_bytes(whole[:size])
        if not any(whole[size - 512 :]):  # a block of zeros is left: nothing is missing
            continue
        with pytest.raises(InputError, match=r"1\.tar' must be a whole \.tar file"):
            load_data(tmp_path, limits=ON_DISK)
    path.write_bytes(whole)
    source = load_data(tmp_path, limits=ON_DISK, on_bad="skip")
    before, _ = source.train[slice(None)]
    path.write_bytes(whole[:2000])  # cut off while it is learned from
    after, _ = source.train[slice(None)]
    kept = before[:, 0, 0, 0] < NUM // 2
    assert torch.equal(after[kept], before[kept])
    assert (after[:, 0, 0, 0] < NUM // 2 + 1).all()


def test_a_member_without_its_last_bytes_is_bad_even_if_its_pixels_are_there(tmp_path):
    archives(tmp_path)
    source = load_data(tmp_path, limits=ON_DISK)
    last = source.train.reader.encoded.places[-1]
    os.truncate(tmp_path / "1.tar", last[1] + last[2] - 4)
    with pytest.raises(InputError, match=r"1\.tar/059\.png \(truncated\)"):
        source.train.reader.read(torch.tensor([NUM - 1]))


def test_members_are_never_unpacked_or_followed(tmp_path, refused):
    """A link is no image, whatever it points at, and a name with .. leads nowhere."""
    Image.fromarray(PIXELS[0]).save(tmp_path / "secret.png")
    inside = tmp_path / "in"
    inside.mkdir()
    with tarfile.open(inside / "a.tar", "w") as tar:
        link = tarfile.TarInfo("0.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
        tar.addfile(link)
    refused(inside / "a.tar", "an archive of images", "none")
    archive(inside / "a.tar", [("../../1.png", png(1))])
    assert np.array_equal(load_rows(inside / "a.tar").x[0, 0].numpy(), PIXELS[1])
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar", "in", "secret.png"]
