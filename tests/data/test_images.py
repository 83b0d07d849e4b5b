"""Folders of images: every mode becomes grey or RGB, and every bad file is named."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from lowerbound.data import images, load_data, load_rows
from lowerbound.data.decoding import decode, header
from lowerbound.distributions.support import Discrete, Real

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)


def good_folder(folder, num=3, rgb=False):
    for i in range(num):
        Image.fromarray(RGB if rgb else GREY).save(folder / f"good{i}.png")
    return folder


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "TIFF", "gif", "webp", "jpg", "JPEG"])
def test_formats(tmp_path, ending):
    Image.fromarray(RGB).save(tmp_path / f"a.{ending}")
    rows = load_rows(f"folder:{tmp_path}")
    assert rows.x.shape == (1, 3, 6, 8)
    assert rows.x.dtype == torch.uint8
    assert rows.support == Discrete(256)
    if ending in ("png", "bmp", "tif"):
        assert np.array_equal(rows.x[0].numpy(), RGB.transpose(2, 0, 1))


def alpha_image(mode, alpha):
    image = Image.fromarray(RGB if mode == "RGBA" else GREY)
    image.putalpha(Image.fromarray(np.full((6, 8), alpha, np.uint8)))
    return image


def transparent_palette():
    image = Image.new("P", (8, 6), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.info["transparency"] = 1
    return image


WHITE = np.full((6, 8), 255, np.uint8)
MODES = {  # image, ending, expected (H, W) or (H, W, 3); None where only the shape is known
    "1 bit": (Image.fromarray(GREY > 127), "png", (GREY > 127) * np.uint8(255)),
    "8 bit": (Image.fromarray(GREY), "png", GREY),
    "16 bit": (Image.fromarray(GREY.astype(np.uint16) * 257), "png", GREY),
    "16 bit tif": (Image.fromarray(GREY.astype(np.uint16) * 257 + 128), "tif", GREY),
    "grey opaque": (alpha_image("LA", 255), "png", GREY),
    "grey clear": (alpha_image("LA", 0), "png", WHITE),
    "RGBA opaque": (alpha_image("RGBA", 255), "png", RGB),
    "RGBA clear": (alpha_image("RGBA", 0), "png", np.dstack([WHITE] * 3)),
    "palette": (Image.fromarray(RGB).quantize(256), "png", None),
    "palette clear": (transparent_palette(), "png", np.dstack([WHITE] * 3)),
    "CMYK": (Image.new("CMYK", (8, 6), (0, 0, 0, 0)), "jpg", np.dstack([WHITE] * 3)),
}


@pytest.mark.parametrize("case", MODES)
def test_modes(tmp_path, case):
    image, ending, expected = MODES[case]
    image.save(tmp_path / f"a.{ending}")
    x = load_rows(tmp_path).x[0].numpy()
    shape = (3, 6, 8) if expected is None or expected.ndim == 3 else (1, 6, 8)
    assert x.shape == shape
    if expected is not None:
        flat = expected if expected.ndim == 3 else expected[..., None]
        assert np.array_equal(x, flat.transpose(2, 0, 1))


@pytest.mark.parametrize("case", MODES)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_header_tells_what_decoding_gives(tmp_path, case, orientation):
    image, ending, _ = MODES[case]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"a.{ending}", exif=exif)
    data = (tmp_path / f"a.{ending}").read_bytes()
    levels = decode(io.BytesIO(data))
    channels = 1 if levels.ndim == 2 else 3
    assert header(io.BytesIO(data)) == (channels, *levels.shape[:2])
    if orientation == 6:
        assert levels.shape[:2] == (8, 6)


def test_rotation_and_first_frame(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(load_rows(tmp_path).x[0, 0].numpy(), np.rot90(GREY, -1))
    frames = [Image.new("L", (8, 6), v) for v in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "a.png").unlink()
    assert load_rows(tmp_path).x.max() == 10


def test_one_colour_image_makes_all_rgb(tmp_path):
    good_folder(tmp_path, 2)
    assert load_rows(tmp_path).x.shape == (2, 1, 6, 8)
    Image.fromarray(RGB).save(tmp_path / "z.png")
    x = load_rows(tmp_path).x
    assert x.shape == (3, 3, 6, 8)
    assert torch.equal(x[0, 0], x[0, 2])
    assert load_rows(tmp_path, support="real").support == Real()


def test_labels_are_subfolders_in_sorted_order(tmp_path, refused):
    for name, value in (("b", 20), ("a/deep", 10), ("c", 30), (".hidden", 40)):
        (tmp_path / name).mkdir(parents=True)
        Image.new("L", (4, 4), value).save(tmp_path / name / "x.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "README.txt").write_text("not an image")
    (tmp_path / ".DS_Store").write_text("not an image")
    (tmp_path / "._x.png").write_text("not an image")
    rows = load_rows(f"folder:{tmp_path}")
    assert rows.class_names == ("a", "b", "c")
    assert rows.labels.tolist() == [0, 1, 2]
    assert rows.x[:, 0, 0, 0].tolist() == [10, 20, 30]
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    refused(tmp_path, "1 images beside sub-folders")


def test_one_subfolder_is_no_label(tmp_path):
    (tmp_path / "all").mkdir()
    good_folder(tmp_path / "all")
    assert load_rows(tmp_path).labels is None


@pytest.mark.parametrize("size", [4, (4, 4), "4", "4x4"])
def test_image_size(tmp_path, size):
    Image.new("L", (8, 4), 50).save(tmp_path / "wide.png")
    Image.new("RGB", (1, 1), (9, 9, 9)).save(tmp_path / "dot.png")
    x = load_rows(tmp_path, image_size=size).x
    assert x.shape == (2, 3, 4, 4)
    assert x[0].unique().tolist() == [9]


def test_resize_covers_then_crops_the_centre(tmp_path):
    image = np.zeros((8, 24), np.uint8)
    image[:, 8:16] = 200  # the centre square is what remains
    Image.fromarray(image).save(tmp_path / "a.png")
    assert load_rows(tmp_path, image_size=8).x.unique().tolist() == [200]
    Image.fromarray(np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255).save(
        tmp_path / "a.png"
    )
    x = load_rows(tmp_path, image_size="8x8").x  # antialiased: a fine chessboard is grey
    assert 120 < x.min() <= x.max() < 135
    assert load_rows(tmp_path, image_size=(2, 5)).x.shape == (1, 1, 2, 5)


@pytest.mark.parametrize(
    "size", [0, -1, "0", "axb", "4x", (1, 2, 3), (4, 0), 10**6, "9" * 50, 1.5]
)
def test_bad_image_size(tmp_path, refused, size):
    refused(good_folder(tmp_path), "'image_size'", image_size=size)


def test_several_sizes(tmp_path, refused):
    good_folder(tmp_path)
    Image.new("L", (3, 5)).save(tmp_path / "odd.png")
    refused(tmp_path, "2 sizes", "6x8 (3)", "5x3 (1)", "--image-size")


def test_no_image(tmp_path, refused):
    refused(f"folder:{tmp_path}", tmp_path.name, ".png")
    (tmp_path / "a.txt").write_text("x")
    refused(tmp_path, tmp_path.name, ".png")


def png_claiming(width, height):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def png_of_text():
    data = b"k\0\1\0\0\0" + zlib.compress(bytes(2**23))
    chunk = (
        struct.pack(">I", len(data))
        + b"iTXt"
        + data
        + struct.pack(">I", zlib.crc32(b"iTXt" + data))
    )
    whole = png_claiming(4, 4)
    return whole[:33] + chunk + whole[33:]


def make_bad(path, kind):
    good = (path.parent / "good0.png").read_bytes()
    match kind:
        case "broken link":
            path.symlink_to(path.parent / "nowhere.png")
        case "not a file":
            os.mkfifo(path)
        case "32-bit":
            Image.fromarray(np.ones((6, 8), np.float32)).save(path, format="TIFF")
        case "format":
            Image.fromarray(RGB).save(path, format="PPM")
        case _:
            data = {
                "empty": b"",
                "not an image": b"just some text",
                "truncated": good[: len(good) // 2],
                "noise": good[:50] + bytes(30) + good[80:],
                "50k": png_claiming(50_000, 50_000),
                "9k": png_claiming(9_000, 9_000),
                "text": png_of_text(),
            }
            path.write_bytes(data[kind])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "(empty)"),
        ("not an image", "(not an image)"),
        ("format", "(not an image)"),
        ("truncated", "(truncated)"),
        ("noise", "bad.png ("),
        ("broken link", "(broken link)"),
        ("not a file", "(not a file)"),
        ("32-bit", "(32-bit pixels)"),
        ("50k", "pixels"),
        ("9k", "9000x9000 pixels are too many"),
        ("text", "bad.png ("),
    ],
)
def test_bad_file(tmp_path, refused, kind, reason):
    make_bad(good_folder(tmp_path) / "bad.png", kind)
    Image.new("L", (3, 5)).save(tmp_path / "odd.png")  # bad files are told before sizes
    refused(tmp_path, "1 bad of 5", "bad.png", reason, "--on-bad skip")
    (tmp_path / "odd.png").unlink()
    rows = load_rows(tmp_path, on_bad="skip")
    assert len(rows.x) == 3
    assert "Skipped 1 bad of 4" in rows.warnings[0]


def test_unreadable_file(tmp_path, refused):
    path = good_folder(tmp_path) / "good1.png"
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    refused(tmp_path, "good1.png (not readable)")


def test_first_five_bad_are_named_in_order(tmp_path, refused):
    good_folder(tmp_path, 10)
    for i in range(7):
        (tmp_path / f"x{i}.png").write_bytes(b"")
    message = refused(tmp_path, "7 bad of 17", *(f"x{i}.png (empty)" for i in range(5)))
    assert "x5.png" not in message
    assert len(load_data(tmp_path, on_bad="skip").train) == 8


def test_only_bad_images(tmp_path, refused):
    (tmp_path / "a.png").write_bytes(b"")
    refused(tmp_path, "1 bad of 1", on_bad="skip")


def test_skipped_images_leave_no_trace(tmp_path):
    good_folder(tmp_path)
    (tmp_path / "bad").mkdir()
    Image.fromarray(RGB[:, :4]).save(tmp_path / "colour.png")
    data = (tmp_path / "colour.png").read_bytes()
    (tmp_path / "colour.png").write_bytes(data[:-40])
    (tmp_path / "bad" / "x.png").write_bytes(b"")
    rows = load_rows(tmp_path, on_bad="skip")  # neither another size, nor colour, nor a class
    assert rows.x.shape == (3, 1, 6, 8)
    assert rows.labels is None


def test_names_cannot_break_the_line(tmp_path, refused):
    (tmp_path / "a\nb\x1b[31m.png").write_bytes(b"")
    message = refused(tmp_path, r"a\nb\x1b[31m.png")
    assert "\x1b" not in message


def test_total_size_is_capped(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 100)
    refused(good_folder(tmp_path), "at most 100 bytes", "--image-size")
    assert len(load_rows(tmp_path, image_size=4).x) == 3
