"""The table of codecs measures what it says: known sizes, nothing lost, the same images."""

from __future__ import annotations

import runpy
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

CODECS = Path(__file__).parent.parent / "benchmarks" / "codecs.py"


@pytest.fixture(scope="module")
def codecs():
    return runpy.run_path(str(CODECS))


def test_a_mosaic_holds_every_image_in_its_place(codecs):
    x = np.arange(103 * 4).reshape(103, 2, 2)
    picture = codecs["mosaic"](x)
    assert picture.shape == (4, 200)
    assert (picture[:2, 2:4] == x[1]).all()
    assert (picture[2:, 4:6] == x[102]).all()
    assert not picture[2:, 6:].any()


def chunks(png: bytes) -> dict[bytes, bytes]:
    """The chunks of a PNG by name."""
    found, place = {}, 8
    while place < len(png):
        (size,) = struct.unpack(">I", png[place : place + 4])
        found[png[place + 4 : place + 8]] = png[place + 8 : place + 8 + size]
        place += 12 + size
    return found


def test_a_binary_png_has_one_bit_per_pixel(codecs):
    x = (np.random.RandomState(0).rand(16, 16) < 0.5).astype(np.uint8)
    there, back = codecs["pillow"]("PNG", True)
    parts = chunks(there(x))
    assert parts[b"IHDR"][8:10] == b"\x01\x00"  # a bit, of grey
    assert len(zlib.decompress(parts[b"IDAT"])) == 16 * (1 + 2)  # rows: their filter, two bytes
    assert (back(there(x)) == x).all()


@pytest.mark.parametrize("is_binary", [False, True])
def test_noise_costs_what_it_holds_and_a_header(codecs, is_binary):
    high = 2 if is_binary else 256
    x = np.random.RandomState(1).randint(0, high, (60, 28, 28)).astype(np.uint8)
    bits, entropy = codecs["bits_per_dim"](x), 1 if is_binary else 8
    streams = {"gzip -9, one stream", "bz2 -9, one stream", "xz -9e, one stream"}
    assert streams <= set(bits)
    for name, value in bits.items():
        assert value >= entropy * (1 if "mosaic" not in name else 0.999), name
    for name in streams:
        assert bits[name] < 1.2 * entropy, name
    header = 8 * 57 / 784  # of a PNG: signature, IHDR, and what encloses the data
    assert bits["PNG, each image"] >= entropy + header


def test_a_codec_that_loses_something_ends_the_run(codecs):
    with pytest.raises(SystemExit, match="was to be lossless"):
        codecs["size_of"]([b"abc"], lambda data: data, lambda data: data[:-1])


def test_the_images_are_those_that_models_are_judged_on(codecs, digits, monkeypatch):
    name, x = codecs["test_images"]("digits", 50)
    assert name == "digits"
    assert (x == digits.test[slice(0, 50)][0].squeeze(1).numpy()).all()
    monkeypatch.delenv("LOWERBOUND_DATA", raising=False)
    with pytest.raises(SystemExit, match="set LOWERBOUND_DATA"):
        codecs["default_specs"]()
