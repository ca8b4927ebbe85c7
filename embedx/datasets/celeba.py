"""CelebA (Liu et al. 2015): faces with 40 binary attributes; by default hair colour is the label, gender the attribute.

`--root` holds the official `list_attr_celeba.txt` and `list_eval_partition.txt`, or Kaggle's files of the same names
ending in `.csv`, and the folder `img_align_celeba`. `-O label=Smiling -O attributes=Male,Young` takes other columns.
`-O cluster=identity` tells whose face each is, where `identity_CelebA.txt` lies there too: test shows 1,000 people some
twenty times each. The twelve group counts of the default are known, and differences are reported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedx.data.download import Download
from embedx.data.manifest import SPLITS, Manifest, build
from embedx.errors import ManifestError
from embedx.plugins import nearest

if TYPE_CHECKING:
    import pandas as pd

DEFAULT = ("Blond_Hair", ("Male",))
COUNTS = {"train": (71629, 66874, 22880, 1387), "val": (8535, 8276, 2874, 182), "test": (9767, 7535, 2480, 180)}


def read(root: Path, label: str = DEFAULT[0], attributes: tuple[str, ...] = DEFAULT[1], cluster: str = "") -> Manifest:
    """The manifest of all faces. Raises `ManifestError` when a file, an attribute or a code is not as published."""
    table, partition = _table(root, "list_attr_celeba"), _table(root, "list_eval_partition")
    for name in (label, *attributes):
        if name not in table.columns:
            raise ManifestError(f"CelebA has no attribute {name!r}: {nearest(name, table.columns)}")
    splits = partition.iloc[:, 0].reindex(table.index)
    if (lost := splits.isna()).any():
        raise ManifestError(
            f"{root}: the partition does not list {lost.idxmax()!r}, the attributes do; fetch both again"
        )
    if unlisted := [f for f in partition.index if f not in table.index][:1]:
        raise ManifestError(f"{root}: the attributes do not list {unlisted[0]!r}, the partition does; fetch both again")
    if odd := sorted({*splits} - {"0", "1", "2"}) + sorted(
        {*table[[label, *attributes]].to_numpy().ravel()} - {"1", "-1"}
    ):
        raise ManifestError(f"{root}: found the code {odd[0]!r}; expected partitions 0, 1, 2 and attributes 1, -1")
    if cluster not in ("", "identity"):
        raise ManifestError(f"CelebA has no cluster {cluster!r}; use -O cluster=identity")
    people = _table(root, "identity_CelebA").iloc[:, 0].reindex(table.index, fill_value="") if cluster else []
    names = {a: (f"not {a}", a) for a in (label, *attributes)}
    words = {a: [names[a][int(v == "1")] for v in table[a]] for a in names}
    columns = {
        "id": [f"{_images(root)}/{file}" for file in table.index],
        "label": words[label],
        "split": [SPLITS[int(s)] for s in splits],
        **{a: words[a] for a in attributes},
        **({cluster: list(people)} if cluster else {}),
    }
    groups = [f"{y}/{a}" for y in names[label] for a in names[attributes[0]]] if attributes else []
    expected = {f"{s}/{g}": n for s, counts in COUNTS.items() for g, n in zip(groups, counts, strict=False)}
    return build(
        "celeba", columns, classes=names[label], values={a: names[a] for a in attributes}, root=str(root.resolve()),
        source="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html", licence="non-commercial research",
        expected=expected if (label, attributes) == DEFAULT else {}, cluster=cluster,
    )  # fmt: skip


def _table(root: Path, stem: str) -> pd.DataFrame:
    """One of the two files as words, indexed by image name: the official text or Kaggle's CSV."""
    import pandas as pd

    text, csv = root / f"{stem}.txt", root / f"{stem}.csv"
    try:
        if csv.is_file():
            return pd.read_csv(csv, dtype=str, index_col=0)
        if not text.is_file():
            raise ManifestError(
                f"{root} holds neither {text.name} nor {csv.name}; --root must be the folder of CelebA's lists"
            )
        lines = text.read_text(encoding="utf-8").splitlines()
        rows = [line.split() for line in lines if line.strip()]
        header = ["partition"]
        if len(rows[0]) == 1:  # a count, then the names of the attributes
            count, header, rows = rows[0][0], rows[1], rows[2:]
            if count != str(len(rows)):
                raise ManifestError(f"{text} lists {len(rows):,} images and says there are {count}; fetch it again")
        return pd.DataFrame([r[1:] for r in rows], index=[r[0] for r in rows], columns=header)
    except (ValueError, IndexError) as error:
        raise ManifestError(f"{root / stem} cannot be read ({str(error).strip()}); fetch it again") from error


def _images(root: Path) -> str:
    """Folder of the images below the root; Kaggle's archive holds it twice."""
    twice = "img_align_celeba/img_align_celeba"
    return twice if (root / twice).is_dir() else "img_align_celeba"


BY_HAND = (
    "CelebA is handed out through Google Drive only, after consent to its terms: https://mmlab.ie.cuhk.edu.hk/projects/"
    "CelebA.html, aligned and cropped images with the lists of attributes and partitions"
)
# The checksums are those that torchvision keeps for the same files.
DOWNLOADS = (
    Download(
        "img_align_celeba.zip", md5="00d2c5bc6d35e252742224ab0c1e8fcb", unpack="img_align_celeba",
        licence="non-commercial research",
    ),
    Download("list_attr_celeba.txt", md5="75e246fa4810816ffd6ee81facbd244c"),
    Download("list_eval_partition.txt", md5="d32c9cbf5e040fd4025c592c306e6668"),
)  # fmt: skip
