"""Decoding: every file becomes a row with a status, and what is decoded follows the one stated policy."""

import hashlib
import io
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from embedx.data.images import MAX_PIXELS, decode
from embedx.data.sources import Folder
from embedx.data.status import Status

quick = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
rng = np.random.default_rng(0)
NOISE = rng.integers(0, 256, (11, 7, 3), dtype=np.uint8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def read(path, data, reads="image"):
    path = path / "row"
    path.write_bytes(data)
    got = decode(Folder(path.parent), path.name, reads)
    assert got.content_hash == hashlib.sha256(data).digest()
    return got


def pixels(path, data):
    got = read(path, data)
    assert (got.status, got.reason, got.value.mode) == (Status.OK, "", "RGB")
    return np.asarray(got.value)


def refused(path, data, reads="image"):
    got = read(path, data, reads)
    assert (got.status, got.value) == (Status.UNREADABLE, None)
    assert got.reason == read(path, data, reads).reason  # no address of an object or the like
    return got.reason


@quick
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_a_png_gives_back_its_pixels(tmp_path, array):
    assert np.array_equal(pixels(tmp_path, encoded(Image.fromarray(array), "PNG")), array)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_other_formats_decode_as_pillow_does(tmp_path, kind):
    data = encoded(Image.fromarray(NOISE), kind)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(pixels(tmp_path, data), np.asarray(image))


def test_a_file_that_cannot_be_read_is_a_row_with_a_reason(tmp_path):
    missing = decode(Folder(tmp_path), "nowhere.png", "image")
    assert (missing.status, missing.reason, missing.content_hash) == (Status.MISSING, "no such file", bytes(32))
    folder = decode(Folder(tmp_path.parent), tmp_path.name, "image")
    assert (folder.status, folder.reason, folder.content_hash) == (Status.UNREADABLE, "not a regular file", bytes(32))
    below = decode(Folder(Path(__file__)), "x.png", "image")
    assert (below.status, below.reason) == (Status.UNREADABLE, "Not a directory")
    assert refused(tmp_path, b"") == "empty file"
    assert refused(tmp_path, b"hello, I am text") == "not an image of a known format"
    assert refused(tmp_path, encoded(Image.fromarray(NOISE), "EPS")) == "not an image of a known format"
    for kind in ("PNG", "JPEG"):
        data = encoded(Image.fromarray(NOISE).resize((64, 64)), kind)
        assert "truncated" in refused(tmp_path, data[: len(data) // 2]).lower()


def test_a_file_without_permission_is_unreadable(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"x")

    def denied(self):  # what the system says to anybody but the superuser, whom tests often run as
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)
    decoded = decode(Folder(path.parent), path.name, "image")
    assert (decoded.status, decoded.reason, decoded.content_hash) == (Status.UNREADABLE, "Permission denied", bytes(32))


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("one\ntwo"), "one"), (KeyError(), "KeyError"), (MemoryError("m" * 999), "m" * 200)],
)
def test_a_reason_is_one_short_line(tmp_path, monkeypatch, error, reason):
    def rgb(data):
        raise error

    monkeypatch.setattr("embedx.data.images.rgb", rgb)
    assert refused(tmp_path, b"x") == reason


def settles(path, data, reads):
    """`decode` never raises, and says OK with a value or something else with a reason."""
    got = read(path, data, reads)
    assert (got.status == Status.OK) == (got.value is not None) == (got.reason == "")
    assert got.status in (Status.OK, Status.UNREADABLE)
    assert "\n" not in got.reason
    assert len(got.reason) <= 200


@quick
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"P6", b"\x93NUMPY\1\0"]),
    st.sampled_from(["image", "vector"]),
)
def test_any_bytes_settle(tmp_path, data, magic, reads):
    settles(tmp_path, magic + data, reads)


GREY = Image.fromarray(NOISE[..., 0])
WHOLE = [
    *((encoded(Image.fromarray(NOISE), kind), "image") for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP")),
    (encoded(GREY.convert("P"), "PNG", transparency=3), "image"),
    (encoded(GREY, "GIF", save_all=True, append_images=[GREY.transpose(0)]), "image"),
    (npy(NOISE[0].astype(np.float32)), "vector"),
]


@settings(quick, max_examples=300)
@given(st.sampled_from(WHOLE), st.integers(0, 10**6), st.integers(0, 255))
def test_one_damaged_byte_settles(tmp_path, whole, place, byte):
    data = bytearray(whole[0])
    data[place % len(data)] = byte
    settles(tmp_path, bytes(data), whole[1])


@quick
@given(st.sampled_from(WHOLE), st.integers(0, 10**6))
def test_a_file_cut_anywhere_settles(tmp_path, whole, length):
    settles(tmp_path, whole[0][: length % len(whole[0])], whole[1])


COLOURS = [(250, 0, 0), (0, 240, 10), (7, 8, 230), (99, 99, 99)]


def palette(**options):
    image = Image.new("P", (4, 1))
    image.putpalette([channel for colour in COLOURS for channel in colour])
    image.putdata(range(4))
    return encoded(image, "PNG", **options)


@pytest.mark.parametrize("options", [{}, {"transparency": 2}, {"transparency": b"\0\x40\x80\xff"}])
def test_a_palette_gives_its_colours_transparent_or_not(tmp_path, options):
    assert pixels(tmp_path, palette(**options)).tolist() == [[list(c) for c in COLOURS]]


@quick
@given(hnp.arrays(np.uint8, (3, 4, 4)))
def test_transparency_is_dropped_and_the_colour_kept(tmp_path, array):
    assert np.array_equal(pixels(tmp_path, encoded(Image.fromarray(array), "PNG")), array[..., :3])
    grey = Image.merge("LA", [Image.fromarray(array[..., 0]), Image.fromarray(array[..., 3])])
    assert np.array_equal(pixels(tmp_path, encoded(grey, "PNG")), np.repeat(array[..., :1], 3, axis=2))


def test_one_bit_is_black_and_white_and_cmyk_is_converted(tmp_path):
    bits = NOISE[..., 0] > 127
    got = pixels(tmp_path, encoded(Image.fromarray(bits), "PNG"))
    assert np.array_equal(got, np.repeat(255 * bits[..., None], 3, axis=2))
    image = Image.fromarray(NOISE).convert("CMYK")
    assert np.array_equal(pixels(tmp_path, encoded(image, "TIFF")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_rescaled_and_never_clipped(tmp_path, kind):
    ramp = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    got = pixels(tmp_path, encoded(Image.fromarray(ramp), kind)).reshape(-1, 3)
    assert (got == got[:, :1]).all()
    grey = got[:, 0].astype(int)
    assert (grey[0], grey[-1]) == (0, 255)
    assert set(np.diff(grey)) == {0, 1}
    assert np.abs(grey - np.arange(65_536) / 257).max() <= 0.5
    eight = np.arange(256, dtype=np.uint16)[None] * 257  # eight bits written as sixteen come back
    assert np.array_equal(pixels(tmp_path, encoded(Image.fromarray(eight), kind))[0, :, 0], np.arange(256))


@pytest.mark.parametrize(("dtype", "reason"), [(np.float32, "floating-point image"), (np.int32, "beyond 16 bits")])
def test_greys_of_unknown_range_are_refused(tmp_path, dtype, reason):
    image = Image.fromarray(np.array([[-1, 0, 70_000]], dtype=dtype))
    assert reason in (found := refused(tmp_path, encoded(image, "TIFF")))
    assert "convert" in found


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_not_applied(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # lay it on its side
    plain, tagged = (encoded(Image.fromarray(NOISE), kind, **o) for o in ({}, {"exif": exif}))
    assert plain != tagged
    assert np.array_equal(pixels(tmp_path, tagged), pixels(tmp_path, plain))


def test_of_an_animation_the_first_frame_counts(tmp_path):
    frames = [Image.new("RGB", (5, 5), c) for c in COLOURS]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == len(frames)
    assert (pixels(tmp_path, data) == COLOURS[0]).all()


def test_pillows_own_warning_about_size_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", NOISE[..., 0].size - 1)
    assert np.array_equal(pixels(tmp_path, encoded(Image.fromarray(NOISE), "PNG")), NOISE)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("side", [14_143, 15_000, 60_000])
def test_too_many_pixels_are_refused_before_memory_is_taken(tmp_path, monkeypatch, side):
    monkeypatch.setattr(Image.core, "new", None)  # where Pillow takes the memory of an image; calling it would raise
    monkeypatch.setattr(Image.core, "fill", None)
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    assert side**2 > MAX_PIXELS
    assert "pixels" in refused(tmp_path, data)


@quick
@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint16, np.int64, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
@example(np.array([np.nan, np.inf]))  # what is not finite is told apart later, by the features
def test_a_vector_comes_back(tmp_path, array):
    got = read(tmp_path, npy(array), "vector")
    assert got.status == Status.OK
    assert got.value.dtype == array.dtype
    np.testing.assert_array_equal(got.value, array)


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_is_ever_unpickled(tmp_path):
    sprung = tmp_path / "sprung"
    data = npy(np.array([Trap(sprung)], dtype=object), allow_pickle=True)
    np.load(io.BytesIO(data), allow_pickle=True)
    assert sprung.exists()  # the trap works
    sprung.rmdir()
    assert "Object arrays cannot be loaded" in refused(tmp_path, data, "vector")
    assert "no .npy array" in refused(tmp_path, pickle.dumps(Trap(sprung)), "vector")
    assert not sprung.exists()


def test_vectors_are_single_arrays_of_numbers(tmp_path):
    packed = io.BytesIO()
    np.savez(packed, a=np.zeros(3))
    for data in (npy(np.array(["a"])), npy(np.zeros(2, "c8")), npy(np.zeros(2, "i4,f4"))):
        assert refused(tmp_path, data, "vector") == "not a .npy array of numbers"
    for data in (packed.getvalue(), encoded(Image.fromarray(NOISE), "PNG")):
        assert "take a backbone that reads images" in refused(tmp_path, data, "vector")
    assert "take a backbone that reads vectors" in refused(tmp_path, npy(np.zeros(3)))


@pytest.mark.parametrize("tail", [npy(np.ones(3)), b"x"])
def test_a_second_array_in_a_file_is_not_passed_over(tmp_path, tail):
    said = f"{len(tail):,} bytes behind the array; a file holds one array"
    assert refused(tmp_path, npy(np.zeros(3)) + tail, "vector") == said
