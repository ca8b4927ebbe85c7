"""UTKFace (Zhang et al. 2017): faces whose file names say age, gender and race; no official split.

`--root` holds the files `AGE_GENDER_RACE_DATE.jpg`, aligned ones ending in `.jpg.chip.jpg`, in any sub-folders.
The label is the gender and the attribute the race, unless `-O label=race -O attributes=gender,age` says otherwise; ages
come in four bins. Three of the published names lack the race and are left out with a remark, two are misspelt and read.
The split is drawn once, 70 / 10 / 20 within each combination of gender, race and age, and kept in the manifest.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from embedx.download import Download
from embedx.errors import ManifestError
from embedx.left_out import shown
from embedx.manifest import Manifest, build
from embedx.plugins import nearest
from embedx.trees import Tree

NAME = re.compile(r"(\d{1,3})_([01])_([0-4])_(\d+) ?\.?jpg(\.chip\.jpg)?")
AGES = {"0-17": 17, "18-39": 39, "40-59": 59, "60 and over": 999}
VALUES = {
    "gender": ("male", "female"),
    "race": ("White", "Black", "Asian", "Indian", "Others"),
    "age": tuple(AGES),
}
SHARES = {"train": 0.7, "val": 0.8, "test": 1.0}  # upper ends


def read(root: Path, label: str = "gender", attributes: tuple[str, ...] = ("race",), seed: str = "0") -> Manifest:
    """The manifest of all faces with a readable name. Raises `ManifestError` for unknown columns or no faces."""
    for name in (label, *attributes):
        if name not in VALUES:
            raise ManifestError(f"UTKFace has no {name!r}: {nearest(name, VALUES)}")
    if not seed.isdecimal():
        raise ManifestError(f"the seed {seed!r} of the split is no whole number; use -O seed=0")
    tree = Tree(root)
    files = sorted(tree.walk())
    found = {f: match for f in files if (match := NAME.fullmatch(f.rpartition("/")[2]))}
    if not found:
        raise ManifestError(
            f"{root} holds no file named like 25_0_1_20170116174525125.jpg.chip.jpg; is it UTKFace's folder?"
        )
    left_out = [f for f in files if f not in found]
    facts = {f: _facts(int(m[1]), int(m[2]), int(m[3])) for f, m in found.items()}
    split = _split(facts, int(seed))
    columns = {
        "id": list(found),
        "label": [facts[f][label] for f in found],
        "split": [split[f] for f in found],
        **{a: [facts[f][a] for f in found] for a in attributes},
    }
    named = ", ".join(map(shown, left_out[:5]))
    remarks = [f"{len(left_out):,} files left out, their names are not AGE_GENDER_RACE_DATE: {named}"] * bool(left_out)
    return build(
        "utkface", columns, classes=VALUES[label], values={a: VALUES[a] for a in attributes}, root=str(root.resolve()),
        source="https://susanqq.github.io/UTKFace/", licence="non-commercial research",
        remarks=(*remarks, *tree.left_out.remarks()),
    )  # fmt: skip


def _facts(age: int, gender: int, race: int) -> dict[str, str]:
    bin_ = next(name for name, last in AGES.items() if age <= last)
    return {"gender": VALUES["gender"][gender], "race": VALUES["race"][race], "age": bin_}


def _split(facts: dict[str, dict[str, str]], seed: int) -> dict[str, str]:
    """Split of every file: within each combination of the three facts a random order, cut at the shares."""
    strata: dict[tuple[str, ...], list[str]] = {}
    for file, values in facts.items():
        strata.setdefault(tuple(values.values()), []).append(file)
    rng, split = np.random.default_rng(seed), {}
    for stratum in sorted(strata):
        members = strata[stratum]
        for place, member in enumerate(rng.permutation(len(members))):
            share = (place + 0.5) / len(members)
            split[members[member]] = next(name for name, end in SHARES.items() if share < end)
    return split


BY_HAND = (
    "UTKFace is handed out through Google Drive only: https://susanqq.github.io/UTKFace/, the aligned and cropped faces"
)
DOWNLOADS = (Download("UTKFace.tar.gz", unpack="UTKFace", licence="non-commercial research"),)
