"""ImageNet (ILSVRC2012) as unpacked for torchvision, or Kaggle's tree; classes are synsets in sorted order.

`--root` holds `train/nXXXXXXXX/*.JPEG` and `val/`, with a folder per synset again or flat; or it holds Kaggle's
`ILSVRC/Data/CLS-LOC` with the same. One of the two is enough, and so is a part of the classes. The labels of a flat
`val` come from `LOC_val_solution.csv`, `imagenet_2012_validation_synset_labels.txt`, or
`ILSVRC2012_validation_ground_truth.txt` with `meta.mat`, found near by or named with `-O labels=FILE`. Readable names
are added to the synsets when `LOC_synset_mapping.txt` or `synset_words.txt` is there; `-O names=none` leaves them out.

The published test labels are secret, so the 50,000 validation images are what everybody reports on: they are the test
split here, and the val split, on which heads are chosen, is a share of every training class, drawn by `-O seed=0`:
`-O holdout=0.05`. `-O val=halves` leaves the training images whole and cuts the validation images of every class in
two instead, one half to choose on and one to report on. Images of a class with the same bytes are drawn together.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from embedx.data.left_out import LeftOut
from embedx.data.manifest import Manifest, build
from embedx.data.trees import Tree
from embedx.datasets._drawn_split import contents, drawn
from embedx.errors import ManifestError

JPEG = (".jpeg", ".jpg")
CLUTTER, STRANGE = "files that are no JPEG images of a synset", "folders that are no synsets"
SYNSET = re.compile(r"n\d{8}")
NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})\.jpe?g", re.IGNORECASE)
TREES = (".", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
LABELS = ("LOC_val_solution.csv", "imagenet_2012_validation_synset_labels.txt", TRUTH)
NAMES = ("LOC_synset_mapping.txt", "synset_words.txt")
PUBLISHED = (1000, 1_281_167, 50_000)
BY_HAND = "ImageNet is handed out after registration, at https://www.image-net.org or Kaggle"


def read(
    root: Path, val: str = "test", holdout: str = "", seed: str = "0", labels: str = "", names: str = ""
) -> Manifest:
    """The manifest of all images. Raises `ManifestError` for a tree, a labels file or an option it cannot read."""
    share = _share(val, holdout)
    if not seed.isdecimal():
        raise ManifestError(f"the seed {seed!r} is no whole number; use -O seed=0")
    if names not in ("", "none"):
        raise ManifestError(f"-O names={names}: expected none, or leave it out to use {' or '.join(NAMES)}")
    base = next((root / t for t in TREES if (root / t / "train").is_dir() or (root / t / "val").is_dir()), None)
    if base is None:
        entries = sorted(p.name for p in root.iterdir())[:8] if root.is_dir() else []
        above = any(SYNSET.fullmatch(f) for f in entries)
        raise ManifestError(
            f"{root} holds no train and no val folder (found {', '.join(entries) or 'nothing'}); "
            + ("--root must be the folder above" if above else "expected train/nXXXXXXXX/*.JPEG, val/ or ILSVRC/")
        )
    base = base.resolve()
    tree = Tree(base)
    train, loose = _scan(tree, "train")
    tested, flat = _scan(tree, "val")
    tree.left_out.add(CLUTTER, *(f"train/{file}" for file in loose[:1]), n=len(loose))
    if flat and any(tested.values()):
        raise ManifestError(f"{base / 'val'} holds {flat[0]!r} beside folders of synsets; keep one of the two layouts")
    if flat:
        tested = _sorted_out(flat, _labels(base, root, labels), tree.left_out)
    classes = sorted(c for c, files in (train if any(train.values()) else tested).items() if files)
    if not classes:
        raise ManifestError(
            f"{base} holds no image like train/n01440764/n01440764_10026.JPEG; unpack the archives, one folder a synset"
        )
    alien = sum(len(files) for c, files in tested.items() if c not in set(classes))
    readable, remarks = _names(base, root) if names != "none" else ({}, [])
    word = {c: f"{c} {readable[c]}" if c in readable else c for c in classes}
    columns: dict[str, list[str]] = {"id": [], "label": [], "split": []}
    for c in classes:
        training, tests = train.get(c, []), tested.get(c, [])
        fitted = [f"train/{c}/{f}" for f in training]
        judged = [f"val/{f}" for f in tests] if flat else [f"val/{c}/{f}" for f in tests]
        columns["id"] += fitted + judged
        columns["label"] += [word[c]] * (len(training) + len(tests))
        columns["split"] += _drawn(base, c, seed, fitted, share, "train")
        columns["split"] += _drawn(base, c, seed, judged, 0.5 if val == "halves" else 0.0, "test")
    counts = (len(classes), sum(map(len, train.values())), sum(map(len, tested.values())) - alien)
    if counts != PUBLISHED:
        text = "found {:,} classes, {:,} training and {:,} validation images; the published set has {:,}, {:,} and {:,}"
        remarks.append(text.format(*counts, *PUBLISHED))
    empty = sorted(c for c in {*train, *tested} if not train.get(c) and not tested.get(c))
    remarks += [f"{len(empty)} class folders without an image left out: {', '.join(empty[:5])}"] * bool(empty)
    remarks += [f"{alien:,} validation images of classes without training images left out"] * bool(alien)
    remarks += tree.left_out.remarks()
    return build(
        "imagenet", columns, classes=[word[c] for c in classes], root=str(base), remarks=tuple(remarks),
        source="https://image-net.org/challenges/LSVRC/2012", licence="ImageNet: non-commercial research",
    )  # fmt: skip


def _share(val: str, holdout: str) -> float:
    """The share of the training images that becomes the val split."""
    if val not in ("test", "halves"):
        raise ManifestError(f"-O val={val}: expected test, or halves to choose on one half of the validation images")
    try:
        share = float(holdout or ("0.05" if val == "test" else "0"))
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise ManifestError(f"-O holdout={holdout}: expected a share of the training images, from 0 to below 1")
    return share


def _scan(tree: Tree, folder: str) -> tuple[dict[str, list[str]], list[str]]:
    """Files of every synset, by their paths in its folder, and JPEG files outside of any; `tree` counts the rest.

    A listing per class and no more: only classes that are drawn from have their files looked at, many at a time.
    """
    synsets: dict[str, list[str]] = {}
    loose: list[str] = []
    if not (tree.root / folder).is_dir():
        return synsets, loose
    folders, files = tree.listed(folder)
    for name in folders:
        if not SYNSET.fullmatch(name):
            tree.left_out.add(STRANGE, f"{folder}/{name}")
            continue
        start = f"{folder}/{name}/"
        synsets[name] = []
        for file in tree.walk(f"{folder}/{name}"):
            if file.lower().endswith(JPEG):
                synsets[name].append(file.removeprefix(start))
            else:
                tree.left_out.add(CLUTTER, file)
    for file in files:
        if file.lower().endswith(JPEG):
            loose.append(file)
        else:
            tree.left_out.add(CLUTTER, f"{folder}/{file}")
    return synsets, loose


def _drawn(base: Path, synset: str, seed: str, files: list[str], share: float, rest: str) -> list[str]:
    """ "val" for a share of a class's files, `rest` for the others: which other classes are there changes nothing."""
    if not share or len(files) < 2:
        return [rest] * len(files)
    return drawn(files, [synset] * len(files), {"val": share, rest: 1.0}, seed, [contents([base / f for f in files])])


def _first(files: tuple[str, ...], base: Path, root: Path) -> Path | None:
    """The first of these files that is there: beside the images, in the development kit or above Kaggle's tree."""
    folders = [base, root, base / "val", base / "ILSVRC2012_devkit_t12/data", base / "devkit/data"]
    folders += [base.parents[2]] if base.parts[-2:] == ("Data", "CLS-LOC") else []
    return next((f for n in files for p in folders if (f := p / n).is_file()), None)


def _names(base: Path, root: Path) -> tuple[dict[str, str], list[str]]:
    """The first name of every synset, from lines like `n01440764 tench, Tinca tinca`."""
    file = _first(NAMES, base, root)
    if file is None:
        return {}, []
    pairs = [line.strip().partition(" ") for line in file.read_text(encoding="utf-8-sig").splitlines()]
    words = {wnid: name.partition(",")[0].strip() for wnid, _, name in pairs if SYNSET.fullmatch(wnid)}
    return {w: n for w, n in words.items() if n}, [f"names of the classes from {file.name}"]


def _labels(base: Path, root: Path, labels: str) -> dict[int, str]:
    """Synset of every validation image by its number, from whichever list is there."""
    file = Path(labels) if labels else _first(LABELS, base, root)
    if file is None or not file.is_file():
        raise ManifestError(
            f"{base / 'val'} is flat and its labels {'in ' + labels + ' do' if labels else 'do'} not exist; put one of "
            f"{', '.join(LABELS)} (with meta.mat) beside it, or name a file with -O labels=FILE"
        )
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if lines and lines[0].partition(",")[0].lower() == "imageid":
        labelled = {int(n[-8:]): w[:9] for n, _, w in (r.partition(",") for r in lines[1:]) if n[-8:].isdecimal()}
    elif lines and all(line.isdecimal() for line in lines):
        code = _codes(_first(("meta.mat",), file.parent, root) or _first(("meta.mat",), base, root) or file)
        labelled = {i: code.get(int(line), line) for i, line in enumerate(lines, 1)}
    else:
        labelled = dict(enumerate(lines, 1))
    if odd := next((w for w in labelled.values() if not SYNSET.fullmatch(w)), None if labelled else "nothing"):
        raise ManifestError(f"{file} holds {odd!r}; expected synsets like n01440764, one for every validation image")
    return labelled


def _codes(file: Path) -> dict[int, str]:
    """The development kit's own numbers of the synsets; a `.mat` file holds arrays and runs no code when read."""
    from scipy.io import loadmat

    try:
        synsets = np.atleast_1d(loadmat(file, squeeze_me=True, variable_names=["synsets"])["synsets"])
        return {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets}
    except Exception as error:  # damaged files raise anything at all
        raise ManifestError(
            f"{file} is no meta.mat ({str(error).partition(chr(10))[0]}); the numbers of the ground truth need the one "
            "of ILSVRC2012_devkit_t12/data beside them"
        ) from error


def _sorted_out(flat: list[str], labels: dict[int, str], left_out: LeftOut) -> dict[str, list[str]]:
    """The flat files by synset; those without a number in their name are left out."""
    numbered = {f: int(m[1]) for f in flat if (m := NUMBERED.fullmatch(f))}
    seen: dict[int, str] = {}
    synsets: dict[str, list[str]] = {}
    for file, number in numbered.items():
        if number in seen:
            raise ManifestError(f"val holds {seen[number]!r} and {file!r}, which are one image; keep one of them")
        if number not in labels:
            raise ManifestError(f"val/{file} has no label among the {len(labels):,} known; fetch the labels file again")
        seen[number] = file
        synsets.setdefault(labels[number], []).append(file)
    left_out.add(CLUTTER, *(f"val/{file}" for file in flat if file not in numbered), n=len(flat) - len(numbered))
    return synsets
