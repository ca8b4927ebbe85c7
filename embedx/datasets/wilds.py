"""Image datasets of the WILDS benchmark (Koh et al. 2021): camelyon17, iwildcam, fmow, rxrx1, waterbirds, celebA.

`--root` is one dataset's folder, `data/camelyon17_v1.0` for instance; it is told by the columns of its table, so it may
have any name. WILDS measures the shift between domains, and has up to five splits. Train stays train;
`-O val=out` (the shifted domains, WILDS's `val`), `in` (those of training, `id_val`) or `both` is what heads are chosen
on, and `-O test=out`, `in` or `both` what is reported (`test`, `id_test`). Images of splits not asked for are left out,
and counted; the attribute `wilds_split` keeps the original of the others and forms no groups.

             label                       attributes            splits of WILDS beside train
camelyon17   normal, tumor               hospital, slide       val (hospital 1), test (hospital 2), id_val
iwildcam     y, the number of a species  location              val, test (other cameras), id_val, id_test
fmow         category                    region, year          val (2013-2015), test (2016 on), id_val, id_test
rxrx1        sirna_id                    cell_type, experiment val, test (other experiments), id_test (site 2)

By default no attribute forms groups: WILDS groups by domain alone, while a group here is label x attribute, and domains
differ between train and test by design, so that many groups could never be reported. `-O attributes=region` groups
all the same, and `-O cluster=patient` names a column of the table that says which images are of one subject (patient or
slide in camelyon17; seq_id, a burst, in iwildcam). Images of classes without any in train or in test are left out as
well, as no head could be fitted or judged on them; `-O classes=all` keeps them. Waterbirds and CelebA go through the
datasets of these names; WILDS numbers their groups background + 2 y, which is label x attribute again.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from embedx.data.manifest import Manifest, build
from embedx.datasets import celeba, waterbirds
from embedx.errors import ManifestError
from embedx.plugins import nearest

CHOICES = {"out": ("",), "in": ("id_",), "both": ("", "id_")}
UNUSED = ""
BY_HAND = "the wilds package fetches its datasets: pip install wilds, then wilds.get_dataset(NAME, download=True)"
Row = dict[str, str]


@dataclass(frozen=True)
class Known:
    """A dataset of WILDS: the columns that tell its table, and what makes a row of a line.

    facts  id, label, split of WILDS and attributes, from a line, its number from 0 and the region of every country;
           raises LookupError or ValueError for a code that is not as published
    """

    table: str
    columns: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    facts: Callable[[Row, int, Row], tuple[str, ...]] | None = None
    licence: str = ""


def _camelyon17(row: Row, number: int, regions: Row) -> tuple[str, ...]:
    node = f"patient_{row['patient']}_node_{row['node']}"
    # Whatever the column of splits says of hospitals 1 and 2: it is older than the benchmark's choice of domains.
    split = {"1": "val", "2": "test"}.get(row["center"]) or {"0": "train", "1": "id_val"}[row["split"]]
    file = f"patches/{node}/patch_{node}_x_{row['x_coord']}_y_{row['y_coord']}.png"
    label = {"0": "normal", "1": "tumor"}[row["tumor"]]
    return file, label, split, f"hospital {row['center']}", f"slide {row['slide']}"


def _iwildcam(row: Row, number: int, regions: Row) -> tuple[str, ...]:
    split = {s: s for s in ("train", "val", "test", "id_val", "id_test")}[row["split"]]
    # The folder `train` is that of all images, those of test too.
    return f"train/{row['filename']}", str(int(row["y"])), split, f"location {row['location_remapped']}"


def _fmow(row: Row, number: int, regions: Row) -> tuple[str, ...]:
    split = {s: s for s in ("train", "val", "test", "seq")}[row["split"]]
    year = int(row["timestamp"][:4])
    era = "id_" if year < 2013 else "val" if year < 2016 else "test"
    if split in ("val", "test"):
        split = f"id_{split}" if era == "id_" else split if era == split else UNUSED
    elif split == "seq" or era != "id_":
        split = UNUSED
    return f"images/rgb_img_{number}.png", row["category"], split, regions.get(row["country_code"], "Other"), str(year)


def _rxrx1(row: Row, number: int, regions: Row) -> tuple[str, ...]:
    split = {s: s for s in ("train", "val", "test")}[row["dataset"]]
    site = {"1": "train", "2": "id_test"}[row["site"]]
    file = f"images/{row['experiment']}/Plate{row['plate']}/{row['well']}_s{row['site']}.png"
    split = site if split == "train" else split
    return file, str(int(row["sirna_id"])), split, row["cell_type"], row["experiment"]


KNOWN = {
    "camelyon17": Known(
        "metadata.csv", ("patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split"),
        ("hospital", "slide"), _camelyon17, "CC0",
    ),
    "iwildcam": Known(
        "metadata.csv", ("filename", "y", "split", "location_remapped"), ("location",), _iwildcam,
        "Community Data License Agreement, permissive 1.0",
    ),
    "fmow": Known(
        "rgb_metadata.csv", ("split", "category", "country_code", "timestamp"), ("region", "year"), _fmow,
        "Functional Map of the World Challenge Public License",
    ),
    "rxrx1": Known(
        "metadata.csv", ("dataset", "experiment", "plate", "well", "site", "sirna_id", "cell_type"),
        ("cell_type", "experiment"), _rxrx1, "CC BY-NC-SA 4.0",
    ),
    "waterbirds": Known("metadata.csv", ("img_filename", "y", "split", "place")),
    "celebA": Known("list_attr_celeba.csv", ("Blond_Hair", "Male")),
}  # fmt: skip


def read(
    root: Path,
    val: str = "out",
    test: str = "out",
    attributes: tuple[str, ...] = (),
    classes: str = "judged",
    cluster: str = "",
) -> Manifest:
    """The manifest of one dataset. Raises `ManifestError` for a folder, a table or an option it cannot read."""
    for option, word, words in (
        ("val", val, CHOICES),
        ("test", test, CHOICES),
        ("classes", classes, ("judged", "all")),
    ):
        if word not in words:
            raise ManifestError(f"-O {option}={word}: expected {' or '.join(words)}")
    name = _recognise(root)
    dataset = KNOWN[name]
    if dataset.facts is None:
        if (val, test, attributes, classes, cluster) != ("out", "out", (), "judged", ""):
            raise ManifestError(f"{name} takes no option here; use the dataset {name.lower()!r} itself")
        return waterbirds.read(root) if name == "waterbirds" else celeba.read(root)
    if odd := [a for a in attributes if a not in dataset.attributes]:
        raise ManifestError(f"{name} has no attribute {odd[0]!r}: {nearest(odd[0], dataset.attributes)}")
    subject = () if not cluster or cluster in dataset.attributes else (cluster,)
    if subject and cluster not in (header := _header(root / dataset.table)):
        raise ManifestError(f"{root / dataset.table} has no column {cluster!r}: {nearest(cluster, header)}")
    table = list(_facts(root, dataset, subject))
    counts = Counter(row[2] for row in table)
    splits: dict[str, str] = {}
    for split, choice in (("train", "out"), ("val", val), ("test", test)):
        wanted = {p + split: split for p in CHOICES[choice]}
        if not any(counts[w] for w in wanted):
            have = ", ".join(sorted(s for s in counts if s)) or "nothing"
            raise ManifestError(
                f"{root} has no rows of {' or '.join(wanted)} (found {have}); choose others with -O {split}="
            )
        splits |= wanted
    remarks = [f"{n:,} images of {s} left out" for s, n in sorted(counts.items()) if s not in splits and s != UNUSED]
    remarks += [f"{counts[UNUSED]:,} images left out that are in no split of WILDS"] * bool(counts[UNUSED])
    table = [row for row in table if row[2] in splits]
    if classes == "judged":
        fitted, judged = ({row[1] for row in table if splits[row[2]] == s} for s in ("train", "test"))
        kept = [row for row in table if row[1] in fitted & judged]
        if len(kept) < len(table):
            gone = len({row[1] for row in table} - (fitted & judged))
            remarks.append(
                f"{len(table) - len(kept):,} images of {gone} classes without any in train or in test left out; "
                "-O classes=all keeps them"
            )
        table = kept
    if not table:
        raise ManifestError(f"{root}: no class has images both in train and in test; is the table whole?")
    names = ("id", "label", "wilds_split", *dataset.attributes, *subject)
    columns = dict(zip(names, zip(*table, strict=True), strict=False))
    return build(
        name, columns | {"split": [splits[row[2]] for row in table]}, grouping=attributes, root=str(root.resolve()),
        remarks=tuple(remarks), source="https://wilds.stanford.edu", licence=dataset.licence, cluster=cluster,
    )  # fmt: skip


def _facts(root: Path, dataset: Known, further: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The rows of the table, with further columns of it. Raises `ManifestError` at the first not as published."""
    assert dataset.facts is not None
    regions = {}
    if dataset.facts is _fmow:
        countries = _lines(root / "country_code_mapping.csv", ("alpha-3", "region"))
        regions = {line["alpha-3"]: line["region"] for line in countries}
    for number, line in enumerate(_lines(root / dataset.table, dataset.columns)):
        try:
            if not all(line[c] for c in dataset.columns):
                raise ValueError(line)
            yield (*dataset.facts(line, number, regions), *(line[c] for c in further))
        except (LookupError, ValueError) as error:
            values = ", ".join(f"{c} {line[c]!r}" for c in dataset.columns)
            raise ManifestError(
                f"{root / dataset.table}, line {number + 2}: not as published ({values}); fetch it again"
            ) from error


def _recognise(root: Path) -> str:
    """Name of the dataset whose table lies in the folder."""
    tables = {k.table: _header(root / k.table) for k in KNOWN.values()}
    for name, dataset in KNOWN.items():
        if set(dataset.columns) <= {*tables[dataset.table]}:
            return name
    if (root / "list_attr_celeba.txt").is_file():
        return "celebA"
    meant = next((n for n in KNOWN if root.resolve().name.lower().startswith(n.lower())), None)
    if meant and (header := tables[KNOWN[meant].table]):
        lacking = [c for c in KNOWN[meant].columns if c not in header]
        raise ManifestError(f"{root / KNOWN[meant].table} has no column {', '.join(lacking)}; is it {meant} of WILDS?")
    below = sorted(p for p in root.iterdir() if p.name.lower().startswith(tuple(n.lower() for n in KNOWN)))
    raise ManifestError(
        f"{root} is no dataset of WILDS known here: {', '.join(KNOWN)}, told by the columns of "
        f"{' or '.join(tables)}{f'; did you mean {below[0]}?' if below else ''}"
    )


def _header(file: Path) -> list[str]:
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8-sig") as lines:
        return next(csv.reader(lines), [])


def _lines(file: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    """The lines of a table, by column. Raises `ManifestError` when it is not there or lacks a column."""
    if not file.is_file():
        raise ManifestError(f"{file} does not exist; it is part of the dataset, fetch it again")
    if missing := [c for c in columns if c not in _header(file)]:
        raise ManifestError(f"{file} has no column {', '.join(missing)}; found {', '.join(_header(file))}")
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            yield from csv.DictReader(lines, restval="")
    except csv.Error as error:
        raise ManifestError(f"{file} cannot be read as a table ({error}); fetch it again") from error
