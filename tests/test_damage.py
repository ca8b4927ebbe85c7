"""Damage of every kind: a bad image costs its own row and no other, a bad cache is refused, nothing ever crashes."""

import io
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageSequence

from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.images import MAX_PIXELS, rgb
from embedx.data.manifest import ids_digest
from embedx.data.sources import Folder
from embedx.data.status import Status
from embedx.errors import CacheError
from embedx.extract import Settings, extract, load_backbone
from embedx.extract.verify import check_cache
from embedx.store import CacheWriter, FeatureCache, Header, Rows, header
from embedx.workspace import Workspace

GOOD, BAD = 300, 1000
BACKBONES = ("raw:8x8", "tiny:broad")
MIB = 1 << 20


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width, height, depth=8, colour=2, data=b"", *more):
    """A PNG that announces any size, with or without data to match."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)), *more]
    chunks += [(b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    framed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def bombs():
    """Small files that announce far more than they hold; the last one holds it."""
    huge = 60_000
    bmp = encoded(Image.new("RGB", (4, 4)), "BMP")
    jp2 = encoded(Image.new("RGB", (4, 4)), "JPEG2000")
    sizes, both = struct.pack(">II", 4, 4), struct.pack(">II", huge, huge)
    yield png(huge, huge)
    yield png(2**31 - 1, 2**31 - 1)
    yield png(0, 0)
    yield b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\0;"
    yield encoded(Image.new("RGB", (4, 4)), "GIF").replace(struct.pack("<HH", 4, 4), struct.pack("<HH", 65_535, 65_535))
    yield struct.pack("<2sHIHHHIIHHIIHHII", b"II", 42, 8, 2, 256, 4, 1, huge, 257, 4, 1, huge, 0, 0, 0, 0)
    yield encoded(Image.new("L", (4, 4)), "TIFF").replace(struct.pack("<HHIHH", 256, 4, 1, 4, 0),
                                                          struct.pack("<HHII", 256, 4, 1, huge))  # fmt: skip
    yield jp2.replace(sizes, both)
    yield b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<IB", 10, 0) + b"\0\0\0" + b"\xff\xff\xff" * 2
    yield bmp[:18] + struct.pack("<ii", huge, huge) + bmp[26:]
    yield bmp[:18] + struct.pack("<ii", 0, 0) + bmp[26:]
    yield b"P6 100000 100000 255 abc"
    yield png(64, 64, 8, 2, bytes(64 * 193), (b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26))))
    yield png(64, 64, 8, 2, bytes(64 * 193), (b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 26))))
    yield png(9_000, 9_000, 16, 0, bytes(9_000 * 18_001))  # whole, and below the limit


def specimens():
    """Sound images of all kinds, some with metadata and some with many frames."""
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[274], exif[270] = 6, "of noise"
    frames = [Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)) for _ in range(60)]
    many = {"save_all": True, "append_images": frames[1:]}
    kinds = ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "JPEG2000")
    found = [encoded(image, kind) for kind in kinds]
    found += [encoded(image, "JPEG", exif=exif, icc_profile=b"no profile" * 50), encoded(image, "PNG", exif=exif)]
    found += [encoded(image, "TIFF", compression="tiff_lzw"), encoded(image, "JPEG", progressive=True)]
    found += [encoded(frames[0], kind, **many) for kind in ("GIF", "PNG", "WEBP", "TIFF")]
    assert all(sum(1 for _ in ImageSequence.Iterator(Image.open(io.BytesIO(f)))) == 60 for f in found[-4:])
    return found


def damaged_image(sound, rng):
    """Bytes that are damaged in one of many ways."""
    whole = bytearray(rng.choice(sound))
    way = rng.randrange(8)
    if way == 0:
        return bytes(whole[: rng.randrange(len(whole))])
    if way <= 3:
        for _ in range(rng.choice((1, 1, 1, 8))):
            whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
    elif way == 4:  # where the metadata lie
        at = rng.randrange(min(len(whole), 600))
        whole[at : at + 16] = rng.randbytes(len(whole[at : at + 16]))
    elif way == 5:
        return rng.choice((b"", b"\0" * 5000, b"a line of text\n" * 9, b"<!doctype html><title>404</title>", b"GIF89a"))
    elif way == 6:
        return bytes(whole[:32]) + rng.randbytes(500)
    else:
        return rng.randbytes(rng.randint(1, 3000))
    return bytes(whole)


def make(root, *, damage):
    """1,300 ids, of which 300 are good; without damage the bad ones are not there at all."""
    rng, sound, hostile = random.Random(0), specimens(), [*bombs()]
    places = rng.sample(range(GOOD + BAD), BAD)
    root.mkdir()
    noise = np.random.default_rng(2)
    for place in sorted(set(range(GOOD + BAD)) - set(places)):
        Image.fromarray(noise.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(root / f"{place:04d}.png")
    for number, place in enumerate(places if damage else ()):
        path = root / f"{place:04d}.png"
        if number < len(hostile):
            path.write_bytes(hostile[number])
        elif number % 100 == 50:
            path.mkdir()
        elif number % 100 == 51:
            path.symlink_to("nowhere")
        elif number % 100 == 52:
            path.symlink_to(path.name)  # in a circle
        elif number % 100 == 53:
            os.mkfifo(path)
        else:
            path.write_bytes(damaged_image(sound, rng))
    return sorted(places)


def extract_in_child(root, cache):
    """What the child process below does; says how much memory itself and its workers took at most, in KiB."""
    ids = [f"{i:04d}.png" for i in range(GOOD + BAD)]
    splits = ["train", "val", "test"]
    columns = {"id": ids, "label": ["a", "b"] * (len(ids) // 2), "split": [splits[i % 3] for i in range(len(ids))]}
    backbones = {name: load_backbone(name) for name in BACKBONES}
    settings = Settings(batch=16, workers=2, shard_rows=100, max_bad=1.0)
    extract(manifests.build("noise", columns), Folder(Path(root)), backbones, Workspace(Path(cache)), settings)
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    sys.stdout.write(json.dumps(peaks))


def run_in_child(root, cache):
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_damage as t; "
    code += f"t.extract_in_child({str(root)!r}, {str(cache)!r})"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return [kib / 1024 for kib in json.loads(done.stdout.splitlines()[-1])]


@pytest.mark.slow
def test_a_thousand_damaged_images_cost_their_own_rows_and_no_others(tmp_path):
    bad = make(tmp_path / "hurt", damage=True)
    assert make(tmp_path / "calm", damage=False) == bad
    hurt_peak, calm_peak = (run_in_child(tmp_path / k, tmp_path / f"{k}-cache") for k in ("hurt", "calm"))
    caches = {
        kind: [FeatureCache.open_complete(Workspace(tmp_path / f"{kind}-cache").cache("noise", b)) for b in BACKBONES]
        for kind in ("hurt", "calm")
    }
    good = np.setdiff1d(np.arange(GOOD + BAD), bad)
    for hurt, calm in zip(caches["hurt"], caches["calm"], strict=True):
        assert (calm.status[bad] == Status.MISSING).all() and (hurt.status[good] == Status.OK).all()
        assert hurt.features()[good].tobytes() == calm.features()[good].tobytes()
        assert set(hurt.reasons) == set(hurt.bad_rows().tolist()) <= set(bad)
        for row, reason in hurt.reasons.items():
            assert reason.strip() and len(reason.splitlines()) == 1 and len(reason) <= 200, (row, reason)
        assert not hurt.features()[hurt.bad_rows()].any()
    pixels, survivors = caches["hurt"][0], 0
    features = pixels.features()
    for row in bad:
        path = tmp_path / "hurt" / f"{row:04d}.png"
        data = path.read_bytes() if path.is_file() else b""
        try:
            image = rgb(data).resize((8, 8), Image.Resampling.BILINEAR)
        except Exception:  # noqa: BLE001  decoders of damaged files raise anything at all
            assert pixels.status[row] != Status.OK, row
            continue
        assert pixels.status[row] == Status.OK, (row, pixels.reasons[row])
        expected = np.asarray(image, dtype=np.float32).transpose(2, 0, 1).ravel() / np.float32(255)
        np.testing.assert_allclose(features[row], expected, atol=1e-6)
        survivors += 1
    assert 50 < survivors < 600, "the damage is too little, or too great, to say anything"
    # Pillow holds four bytes a pixel, after two in which they were read; nothing may be held several times.
    whole_one = 81e6 * (4 + 2 + 2) / MIB
    assert MAX_PIXELS > 81e6
    assert hurt_peak[0] < calm_peak[0] + 200, (hurt_peak, calm_peak)
    assert hurt_peak[1] < calm_peak[1] + whole_one + 200, (hurt_peak, calm_peak)


# Caches

N, DIM, BLOCK = 60, 8, 16
IDS = [f"images/{i:03d}.png" for i in range(N)]
PROVENANCE = {"spec": "raw:1x1", "identity": {"weights": "abc"}, "conditions": {"device": "cpu", "batch": 4}}
DAMAGES, SECONDS, MEMORY = 1000, 10, 3 << 30


def cache_file(path):
    rng = np.random.default_rng(0)
    status = np.zeros(N, np.uint8)
    status[[3, 50]] = Status.UNREADABLE
    head = Header("raw:1x1", DIM, "float32", ids_digest(IDS), 0, N, N, PROVENANCE)
    features = rng.normal(size=(N, DIM)).astype("<f4")
    hashes = rng.integers(0, 256, (N, 32), dtype=np.uint8)
    with CacheWriter(path, head, IDS) as writer:
        writer.append(Rows(IDS, features, status, hashes, {3: "torn", 50: "empty é"}))
        writer.attach("head/weight", np.ones((4, DIM), "f4"))
        writer.attach("head/bias", np.ones(4, "f4"))
    return path.read_bytes()


def everything(path):
    """All that a reader can get out of a cache, comparable."""
    c = FeatureCache.open_complete(path)
    arrays = (c.features(), c.status, c.content_hash, *c.extras.values())
    described = [(a.dtype.str, a.shape, a.tobytes()) for a in arrays]
    return c.header, described, c.ids.tolist(), c.reasons, list(c.extras), [r.features.tobytes() for r in c.chunks()]


def damaged_cache(sound, rng):
    data, way, at = bytearray(sound), rng.randrange(7), rng.randrange(len(sound))
    if way <= 1:
        data[at] ^= rng.randrange(1, 256)
    elif way == 2:
        stop = min(len(data), at + rng.randint(2, 64))
        data[at:stop] = rng.randbytes(stop - at)
    elif way == 3:
        size = rng.choice((8, 64, 512, 4096))
        at = at // size * size
        data[at : at + size] = bytes(len(data[at : at + size]))
    elif way == 4:
        del data[at:]
    elif way == 5:
        data += rng.randbytes(rng.randint(1, 5000))
    else:
        size = rng.choice((8, 64, 256, 512))
        i, j = (rng.randrange(len(data) // size) * size for _ in range(2))
        data[i : i + size], data[j : j + size] = data[j : j + size], data[i : i + size]
    return bytes(data)


def read_damaged(folder, first):
    """What the child process below does: read one damaged file after the other, each in bounded time and memory."""
    header.BLOCK_BYTES = BLOCK * DIM * 4
    folder = Path(folder)
    sound, path = cache_file(folder / "sound.h5"), folder / "damaged.h5"
    expected, start = everything(folder / "sound.h5"), sound.index(features_of(folder / "sound.h5"))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    refused = 0
    for number in range(first, DAMAGES):
        data = damaged_cache(sound, random.Random(number))
        path.write_bytes(data)
        (folder / "at").write_text(str(number))
        signal.alarm(SECONDS)  # nobody handles it: a read that hangs dies
        blocks = range(0, N, BLOCK)
        hurt = [(b, min(b + BLOCK, N)) for b in blocks if differ(sound, data, start, b)]
        try:
            assert everything(path) == expected, f"damage {number}: other numbers"
            assert data == sound, f"damage {number} was not noticed"
        except CacheError as error:
            assert "extract again" in str(error), error
            refused += 1
            try:
                report = check_cache(path)
            except CacheError:
                continue
            assert report.damaged or report.faults, f"damage {number}: refused, but found sound by verify"
            assert list(report.damaged) == hurt or "the array 'checksums'" in report.faults, (number, hurt, report)
    sys.stdout.write(str(refused))


def differ(sound, data, start, row):
    part = slice(start + row * DIM * 4, start + min(row + BLOCK, N) * DIM * 4)
    return sound[part] != data[part]


def features_of(path):
    return FeatureCache.open(path).features().tobytes()


@pytest.mark.slow
def test_a_cache_damaged_in_a_thousand_ways_is_right_or_refused(tmp_path):
    """In a process of its own, as HDF5 crashes, or never ends, on some of these when nobody looks before it does."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_damage as t; "
    code += f"t.read_damaged({str(tmp_path)!r}, 0)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, (done.returncode, (tmp_path / "at").read_text(), done.stderr[-2000:])
    assert int(done.stdout) > 0.9 * DAMAGES


@pytest.mark.parametrize("seed", range(0, 200, 10))
def test_verify_exits_with_one_whenever_reading_is_refused(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(header, "BLOCK_BYTES", BLOCK * DIM * 4)
    sound, path = cache_file(tmp_path / "sound.h5"), tmp_path / "damaged.h5"
    data = damaged_cache(sound, random.Random(seed))
    path.write_bytes(data)
    done = CliRunner().invoke(main, ["verify", str(path)])
    assert (done.exit_code == 1) == (data != sound), done.output
    assert data == sound or "extract again" in done.stderr
