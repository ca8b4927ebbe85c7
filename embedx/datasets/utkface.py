"""UTKFace (Zhang et al. 2017): faces whose file names say age, gender and race; no official split.

`--root` holds the files `AGE_GENDER_RACE_DATE.jpg`, aligned ones ending in `.jpg.chip.jpg`, in any sub-folders.
The label is the gender and the attribute the race, unless `-O label=race -O attributes=gender,age` says otherwise; ages
come in four bins. Three of the published names lack the race and are left out with a remark, two are misspelt and read.
The split is drawn once, 70 / 10 / 20 within each combination of gender, race and age, and kept in the manifest.

Faces with the same time of collection are of one photograph, and some files have the same bytes under several names: of
the 23,705 faces 414 share their time with another one, and 765 their bytes, 104 of the 375 such images with two labels.
All of these fall into one split, and the column `photo` names them: it is the manifest's cluster.
"""

from __future__ import annotations

import re
from pathlib import Path

from embedx.data.download import Download
from embedx.data.left_out import shown
from embedx.data.manifest import Manifest, build
from embedx.data.trees import Tree
from embedx.data.units import coded, units
from embedx.datasets._drawn_split import contents, drawn
from embedx.errors import ManifestError
from embedx.plugins import nearest

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
    named = {f: match for f in files if (match := NAME.fullmatch(f.rpartition("/")[2]))}
    if not named:
        raise ManifestError(
            f"{root} holds no file named like 25_0_1_20170116174525125.jpg.chip.jpg; is it UTKFace's folder?"
        )
    left_out = [f for f in files if f not in named]
    facts = {f: _facts(int(m[1]), int(m[2]), int(m[3])) for f, m in named.items()}
    same = ([m[4] for m in named.values()], contents([root / f for f in named]))
    photo = units([coded(keys) for keys in same], len(named))
    first: dict[int, str] = {}
    columns = {
        "id": list(named),
        "label": [facts[f][label] for f in named],
        "split": drawn(list(named), ["/".join(facts[f].values()) for f in named], SHARES, seed, same),
        "photo": [first.setdefault(u, time) for u, time in zip(photo.tolist(), same[0], strict=True)],
        **{a: [facts[f][a] for f in named] for a in attributes},
    }
    named = ", ".join(map(shown, left_out[:5]))
    remarks = [f"{len(left_out):,} files left out, their names are not AGE_GENDER_RACE_DATE: {named}"] * bool(left_out)
    return build(
        "utkface", columns, classes=VALUES[label], values={a: VALUES[a] for a in attributes}, root=str(root.resolve()),
        source="https://susanqq.github.io/UTKFace/", licence="non-commercial research",
        remarks=(*remarks, *tree.left_out.remarks()), cluster="photo",
    )  # fmt: skip


def _facts(age: int, gender: int, race: int) -> dict[str, str]:
    bin_ = next(name for name, last in AGES.items() if age <= last)
    return {"gender": VALUES["gender"][gender], "race": VALUES["race"][race], "age": bin_}


BY_HAND = (
    "UTKFace is handed out through Google Drive only: https://susanqq.github.io/UTKFace/, the aligned and cropped faces"
)
DOWNLOADS = (Download("UTKFace.tar.gz", unpack="UTKFace", licence="non-commercial research"),)
