"""SpuCoMNIST (Joshi et al. 2023): MNIST digits in classes of two, on backgrounds whose colour goes with the class.

`--root` holds the four IDX files of MNIST or Fashion-MNIST, packed or not, also under `MNIST/raw`. The images are
painted from them once, into a folder below the root (`-O images=FOLDER`: elsewhere) whose name holds a digest of all
pixels. Without a root they are painted in the cache folder, from what this machine has.

-O scans        without a root: fashion-mnist, which Debian's package dataset-fashion-mnist puts on disk; digits, the
                1,797 scans of scikit-learn, enlarged three times; auto: the former where they are, else the latter.
-O difficulty   magnitude_large: the whole background; magnitude_medium, _small: the top left 4 x 4, 2 x 2 pixels;
                variance_low: the top left 7 x 7; variance_medium, _high: 49 pixels of the top left 14 x 14, of all
                28 x 28, drawn anew for every image. Pixels that are 0 in the digit are painted, the others stay.
-O correlation  0.995: int(correlation * n) of the n training images of a class have the colour of the class, the
                others one of the other colours; one figure, or one per class with commas. In val and test every class
                has all colours alike.
-O classes      01,23,45,67,89: the digits of every class; images of other digits are dropped.
-O label_noise  this share of the training images gets another label, after the colours: groups are (noisy) label x
                colour, and the attribute `clean_label` keeps what it was.
-O size         at most so many of the training images and of the test images, drawn by the seed; 0: all.
-O core_noise   this share of the training images has every pixel blanked, and then painted as background, whose normal
                deviate is not above 0.25 (about 60 % of them).

The colours are matplotlib's `hsv` at i / classes, rounded to 8 bits.

NOT THE PUBLISHED VALIDATION LIST: the authors hold out a fixed list of 11,996 of the 60,000 training images. As many
are drawn here, by `-O seed=0`; `-O val_indices=FILE` takes a list of numbers, the authors' for one. Colours are our own
draw in any case, so that images agree with the published ones in law, not one by one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedx.data.manifest import Manifest, build
from embedx.datasets._drawn_split import drawn
from embedx.datasets._mnist import Scans, downloads, of_files, of_machine  # noqa: F401  `embedx data get` asks for downloads
from embedx.errors import ManifestError
from embedx.files import landing_folder, locked, write_text
from embedx.plugins import nearest

# The square at the top left that may be painted: its side, and how many of its pixels are drawn (None: all).
DIFFICULTIES: dict[str, tuple[int, int | None]] = {
    "magnitude_large": (28, None), "magnitude_medium": (4, None), "magnitude_small": (2, None),
    "variance_low": (7, None), "variance_medium": (14, 49), "variance_high": (28, 49),
}  # fmt: skip
HUES = (
    "red", "orange", "yellow", "lime", "green", "mint", "cyan", "azure", "blue", "violet", "magenta", "rose",
)  # fmt: skip
HELD_OUT = 11_996 / 60_000
DONE, OURS = "complete.txt", "painted-here.txt"


@dataclass(frozen=True, eq=False)
class Sheet:
    """One split before it is painted: file names, digits (n, 28, 28), class, colour, label, whether to blank (n,)."""

    files: list[str]
    digits: np.ndarray
    y: np.ndarray
    colour: np.ndarray
    label: np.ndarray
    blank: np.ndarray


def make(root: Path) -> None:
    """Mark a folder of the cache as one where images are painted, from scans of this machine."""
    root.mkdir(parents=True, exist_ok=True)
    write_text(root / OURS, "images of SpuCoMNIST\n")


def read(  # noqa: PLR0913, PLR0917  the options are its parameters
    root: Path,
    difficulty: str = "magnitude_large",
    correlation: tuple[str, ...] = ("0.995",),
    classes: tuple[str, ...] = ("01", "23", "45", "67", "89"),
    label_noise: str = "0",
    core_noise: str = "0",
    val_indices: str = "",
    seed: str = "0",
    images: str = "",
    scans: str = "",
    size: str = "0",
) -> Manifest:
    """The manifest of the painted images. Raises `ManifestError` for an option or an MNIST file it cannot read."""
    difficulty = _difficulty(difficulty)
    for name, word in (("seed", seed), ("size", size)):
        if not word.isdecimal():
            raise ManifestError(f"-O {name}={word}: expected a whole number, such as {name}=0")
    k, of_digit, seed = len(classes), _of_digit(classes), str(int(seed))
    rho = _shares("correlation", correlation, k)
    noises = (_shares("label_noise", (label_noise,), 1, 0.0)[0], _shares("core_noise", (core_noise,), 1, 0.0)[0])
    ours = (root / OURS).is_file()
    if (images or val_indices) if ours else scans:
        odd = "scans" if scans else "images" if images else "val_indices"
        raise ManifestError(f"-O {odd} goes {'with' if ours else 'without'} --root, the folder of the four MNIST files")
    found = of_machine(scans or "auto") if ours else of_files(root)
    asked = _rows(found, _held_out(val_indices, found.train[0], seed), int(size), seed)
    sheets = {
        "train": _sheet("train", *found.train, asked["train"], of_digit, seed, rho, noises),
        "val": _sheet("val", *found.train, asked["val"], of_digit, seed),
        "test": _sheet("test", *found.test, asked["test"], of_digit, seed),
    }
    version = _version(sheets, difficulty, seed, k)
    folder = Path(images or root) / f"spuco-mnist-{difficulty}-{'_'.join(correlation)}-seed{seed}-{version}"
    if not folder.exists():
        _write(folder, version, sheets, difficulty, seed, k)
    _check(folder, version, sheets)
    base = root if ours else folder  # the cache folder may be moved, so that what lies in it is named from there

    words, hues = [" or ".join(c) for c in classes], [HUES[round(len(HUES) * i / k) % len(HUES)] for i in range(k)]

    def below(split: str) -> str:
        return (folder / _folder(version, split)).relative_to(base).as_posix()

    columns = _columns(sheets, below, words, hues)
    if float(label_noise) == 0:
        del columns["clean_label"]
    remarks = list(found.remarks)
    if not val_indices:
        remarks.append(
            f"the {int(asked['val'].sum()):,} validation images are drawn with seed {seed}; this is NOT the published "
            "list, which -O val_indices=FILE takes"
        )
    return build(
        "spuco-mnist", columns, classes=words, values={"background": hues, "clean_label": words}, version=version,
        grouping=("background",), root=str(base.resolve()), remarks=tuple(remarks),
        source=f"https://github.com/BigML-CS-UCLA/SpuCo, painted from {found.name}", licence=found.licence,
    )  # fmt: skip


def _difficulty(word: str) -> str:
    name = word.replace("-", "_")
    if name not in DIFFICULTIES:
        raise ManifestError(f"SpuCoMNIST has no difficulty {name!r}: {nearest(name, DIFFICULTIES)}")
    return name


def _rows(found: Scans, held_out: np.ndarray, size: int, seed: str) -> dict[str, np.ndarray]:
    """Of each split, which scans of its half it has (n,); of `size` scans of each half, or of all where it is 0."""
    held = np.zeros(len(found.train[1]), dtype=bool)
    held[held_out] = True
    rows = {"train": ~held, "val": held, "test": np.ones(len(found.test[1]), dtype=bool)}
    if not size:
        return rows
    drawn_rows = {half: _some(len(getattr(found, half)[1]), size, seed, half) for half in ("train", "test")}
    return {split: of & drawn_rows["test" if split == "test" else "train"] for split, of in rows.items()}


def _version(sheets: Mapping[str, Sheet], difficulty: str, seed: str, k: int) -> str:
    """A digest of every name and pixel."""
    digest = hashlib.sha256()
    for split, sheet in sheets.items():
        for files, pixels in _painted(split, sheet, difficulty, seed, k):
            digest.update("/".join([split, *files]).encode() + pixels.tobytes())
    return digest.hexdigest()[:12]


def _columns(
    sheets: Mapping[str, Sheet], below: Callable[[str], str], words: list[str], hues: list[str]
) -> dict[str, list[str]]:
    """The columns of the manifest; `below` says in which folder the images of a split lie."""
    pairs = sheets.items()
    return {
        "id": [f"{below(split)}/{f}" for split, sheet in pairs for f in sheet.files],
        "label": [words[c] for _, sheet in pairs for c in sheet.label],
        "split": [split for split, sheet in pairs for _ in sheet.files],
        "background": [hues[c] for _, sheet in pairs for c in sheet.colour],
        "clean_label": [words[c] for _, sheet in pairs for c in sheet.y],
    }


def _sheet(
    split: str, digits: np.ndarray, values: np.ndarray, rows: np.ndarray, of_digit: np.ndarray, seed: str,
    rho: list[float] | None = None, noises: tuple[float, float] = (0.0, 0.0),
) -> Sheet:  # fmt: skip
    """Colours and noise of one split; without `rho` every class has all colours alike."""
    rows = np.flatnonzero(rows & (of_digit[values] >= 0))
    y, k, rng = of_digit[values[rows]], of_digit.max() + 1, _stream(seed, split, "colours")
    colour = np.empty(len(y), dtype=np.int64)
    for c in range(k):
        of, place = np.flatnonzero(y == c), np.arange(np.count_nonzero(y == c))
        drawn = place % k
        if rho is not None:  # the place decides which other colour, so these are about as many of each
            drawn = np.delete(np.arange(k), c)[place % (k - 1)]
            drawn[rng.permutation(len(of))[: int(rho[c] * len(of))]] = c
        colour[of] = rng.permutation(drawn)
    chosen, label = _stream(seed, split, "label noise"), y.copy()
    wrong = chosen.permutation(len(y))[: int(noises[0] * len(y))]
    label[wrong] = (y[wrong] + chosen.integers(1, k, len(wrong))) % k
    blank = _stream(seed, split, "core noise").permutation(len(y)) < int(noises[1] * len(y))
    return Sheet([f"{i:05d}.png" for i in rows], digits[rows], y, colour, label, blank)


def _some(n: int, size: int, seed: str, half: str) -> np.ndarray:
    """(n,) bool: at most `size` of n."""
    chosen = np.zeros(n, dtype=bool)
    chosen[_stream(seed, half, "size").permutation(n)[:size]] = True
    return chosen


def palette(k: int) -> np.ndarray:
    """(k, 3) uint8: the colours of k backgrounds."""
    import matplotlib as mpl

    hsv = mpl.colormaps["hsv"].resampled(256)  # of which a user's matplotlibrc may have made fewer
    return np.rint(255 * hsv(np.arange(k) / k)[:, :3]).astype(np.uint8)


def _painted(split: str, sheet: Sheet, difficulty: str, seed: str, k: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """File names and pixels (m, 28, 28, 3), uint8, of one stretch after the other; the same whenever they are asked."""
    colours_of = palette(k)
    side, drawn = DIFFICULTIES[difficulty]
    spots, deviates = _stream(seed, split, "spots"), _stream(seed, split, "deviates")
    for start in range(0, len(sheet.files), 4096):
        chunk = slice(start, start + 4096)
        digits, blank = sheet.digits[chunk].copy(), np.flatnonzero(sheet.blank[chunk])
        digits[blank] *= deviates.standard_normal((len(blank), 28, 28)) > 0.25
        square = np.ones((len(digits), side * side), dtype=bool)
        if drawn is not None:
            rank = spots.random(square.shape).argpartition(drawn, axis=1)
            np.put_along_axis(square, rank[:, drawn:], values=False, axis=1)
        paint = digits == 0
        paint[:, :side, :side] &= square.reshape(-1, side, side)
        paint[:, side:], paint[:, :, side:] = False, False
        colours = colours_of[sheet.colour[chunk]][:, None, None]
        yield sheet.files[chunk], np.where(paint[..., None], colours, digits[..., None])


def _write(folder: Path, version: str, sheets: dict[str, Sheet], difficulty: str, seed: str, k: int) -> None:
    """Paint all images into a folder that gets its name when it is complete."""
    from PIL import Image

    try:
        with locked(folder):  # of several processes one paints, the others find it done
            if folder.exists():
                return
            with landing_folder(folder) as temporary:
                for split, sheet in sheets.items():
                    (temporary / _folder(version, split)).mkdir(parents=True)
                    for files, pixels in _painted(split, sheet, difficulty, seed, k):
                        for file, picture in zip(files, pixels, strict=True):
                            Image.fromarray(picture).save(temporary / _folder(version, split) / file, compress_level=1)
                write_text(temporary / DONE, version)
    except OSError as error:
        raise ManifestError(
            f"{folder} cannot be written ({error.strerror}); name another with -O images=FOLDER"
        ) from error


def _check(folder: Path, version: str, sheets: dict[str, Sheet]) -> None:
    done, lost = folder / DONE, 0
    whole = done.is_file() and done.read_text(encoding="utf-8") == version
    for split, sheet in sheets.items() if whole else ():
        lost += len(set(sheet.files) - {*os.listdir(folder / _folder(version, split))})  # noqa: PTH208  names alone
    if not whole or lost:
        raise ManifestError(f"{folder} is not whole ({lost:,} images are gone); delete it, and it is painted again")


def _folder(version: str, split: str) -> str:
    """The version is part of every id, so that a cache made of other pixels does not even have the same rows."""
    return f"{version}-{split}"


def _of_digit(classes: tuple[str, ...]) -> np.ndarray:
    """Class of every digit, -1 for digits of none."""
    digits = "".join(classes)
    if len(classes) < 2 or not all(c.isascii() and c.isdecimal() for c in classes) or len(set(digits)) < len(digits):
        raise ManifestError(
            f"-O classes={','.join(classes)}: expected two or more sets of digits, as in 01,23,45,67,89"
        )
    of = np.full(10, -1)
    for number, word in enumerate(classes):
        of[[int(d) for d in word]] = number
    return of


def _shares(option: str, words: tuple[str, ...], k: int, least: float = 1e-9) -> list[float]:
    try:
        shares = [float(w) for w in words] * (k if len(words) == 1 else 1)
    except ValueError:
        shares = []
    if len(shares) != k or not all(least <= s <= 1 for s in shares):
        raise ManifestError(
            f"-O {option}={','.join(words)}: expected one share {'from' if least == 0 else 'above'} 0 to 1"
            + f", or {k} of them" * (k > 1)
        )
    return shares


def _held_out(file: str, digits: np.ndarray, seed: str) -> np.ndarray:
    """Numbers of the training images that are for validation: from a list, in brackets or not, or drawn.

    Digits (n, 28, 28) that are equal pixel by pixel are drawn together.
    """
    n = len(digits)
    if not file:
        numbers, scans = [f"{i:09d}" for i in range(n)], [scan.tobytes() for scan in digits]
        split = drawn(numbers, ["held out"] * n, {"val": HELD_OUT, "train": 1.0}, seed, [scans])
        return np.flatnonzero(np.array(split) == "val")
    if not Path(file).is_file():
        raise ManifestError(f"{file} does not exist; name a file of numbers with -O val_indices=FILE")
    text = Path(file).read_text(encoding="utf-8-sig")
    words = text.partition("[")[2].partition("]")[0] if "[" in text else text
    numbers = words.replace(",", " ").split()
    if odd := [w for w in numbers if not w.isdecimal() or int(w) >= n]:
        raise ManifestError(f"{file} holds {odd[0]!r}; expected numbers of training images, 0 to {n - 1:,}")
    if not 0 < len(numbers) == len({int(w) for w in numbers}) < n:
        raise ManifestError(f"{file} holds {len(numbers):,} numbers; expected some of {n:,}, every one once")
    return np.array(numbers, dtype=np.int64)


def _stream(*words: str) -> np.random.Generator:
    """Every draw has a stream of its own, so that noise added later moves no colour."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(" ".join(words).encode()).digest()[:8], "little"))
