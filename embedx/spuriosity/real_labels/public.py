"""The two public tables: ReaL of ImageNet's validation images, and the votes of labelerrors.com.

ReaL: entry i belongs to ILSVRC2012_val_0000000i.JPEG, counted from 1, whose class numbers are the places of ImageNet's
1,000 synsets in their sorted order. Rows are found by the names of their files, classes by their synsets. An entry
without a class means that the raters did not agree. Beyer et al., "Are we done with ImageNet?", 2020. The package timm
has a copy of it (timm/data/_info/imagenet_real_labels.json).

labelerrors.com: a record for each image whose label confident learning called wrong, with the votes of five people:
does it show the given class, the guessed one, both, neither? The answer of three or more counts; without one nothing is
known. Where it is neither, the label is wrong and the real ones are not known. Images that nobody doubted are not in
it, so base rates and precisions are of doubted images, doubted by confident learning at that: as a judge between a
review and confident learning the table is partial. Northcutt, Athalye and Mueller, "Pervasive Label Errors in Test Sets
Destabilize Machine Learning Benchmarks", 2021.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from embedx.data.manifest import Manifest
from embedx.documents import shown
from embedx.plugins import nearest
from embedx.spuriosity.real_labels.table import Entry

SYNSET = re.compile(r"n\d{8}(?= |$)")
NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})\.jpe?g", re.IGNORECASE)
IMAGES, CLASSES = 50_000, 1_000
AGREED = 3
"""Votes of five that settle an image of labelerrors.com, as its authors count."""
VOTES = ("given", "guessed", "both", "neither")


def real(content: Sequence[Sequence[Any]], manifest: Manifest) -> list[Entry]:
    """What ReaL says of the validation images of a manifest. Raises `ValueError`."""
    if len(content) != IMAGES:
        raise ValueError(
            f"it has {len(content):,} entries, expected {IMAGES:,}, one for each validation image of ImageNet, as in "
            "ReaL's real.json; labels of other images go into a CSV with the columns id and labels"
        )
    for i, labels in enumerate(content, 1):
        odd = next((x for x in labels if type(x) is not int or not 0 <= x < CLASSES), None)
        if odd is not None:
            raise ValueError(f"entry {i:,} holds {shown(odd)}, expected class numbers from 0 to {CLASSES - 1}")
        if len(set(labels)) < len(labels):
            raise ValueError(f"entry {i:,} holds a class twice ({shown(labels)}), expected every one once")
    numbers = _class_numbers(manifest)
    rows: dict[int, int] = {}
    for row, name in enumerate(manifest.ids):
        if found := NUMBERED.fullmatch(name.rpartition("/")[2]):
            number = int(found[1])
            if number in rows:
                raise ValueError(
                    f"{manifest.name} has {manifest.ids[rows[number]]!r} and {name!r}, which are one validation image; "
                    "keep one of them"
                )
            if not 1 <= number <= IMAGES:
                raise ValueError(f"{name!r} has the number {number:,}, expected 1 to {IMAGES:,}")
            rows[number] = row
    if not rows:
        raise ValueError(
            f"it is of the validation images of ImageNet, and {manifest.name} has no image with a name like "
            f"ILSVRC2012_val_00000001.JPEG (found {manifest.ids[0]!r}); write a CSV with the columns id and labels"
        )
    return [Entry.of(row, numbers[manifest.labels[row]], content[n - 1]) for n, row in rows.items()]


def label_errors(content: Sequence[Mapping[str, Any]], manifest: Manifest) -> list[Entry]:
    """What the votes of labelerrors.com say of the rows of a manifest. Raises `ValueError`."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(manifest.ids):
        rows.setdefault(name.rpartition("/")[2], []).append(row)
    synsets = all(SYNSET.match(name) for name in manifest.classes)
    numbers = _class_numbers(manifest) if synsets else list(range(len(manifest.classes)))
    entries, seen, other = [], {}, 0
    for i, record in enumerate(content, 1):
        name, given, guessed, votes = _record(i, record, CLASSES if synsets else len(manifest.classes))
        found = rows.get(name, [])
        if len(found) > 1:
            raise ValueError(f"record {i:,}: {name!r} is the name of {len(found)} images of {manifest.name}")
        if not found and synsets:
            continue  # of a part of ImageNet
        if not found:
            raise ValueError(f"record {i:,}: {manifest.name} has no image {name!r}; {nearest(name, list(rows)[:1000])}")
        if name in seen:
            raise ValueError(f"record {i:,}: {name!r} is there already, in record {seen[name]:,}; expected it once")
        seen[name], row = i, found[0]
        label = numbers[manifest.labels[row]]
        other += label != given
        entries.append(_settled(row, label, given, guessed, votes))
    if not entries:
        raise ValueError(f"none of its {len(content):,} images is in {manifest.name}; it is of another dataset")
    if 2 * other > len(entries):
        raise ValueError(
            f"{other:,} of {len(entries):,} images had another label there than in {manifest.name}: its class numbers "
            "mean other classes; write a CSV with the columns id and labels"
        )
    return entries


def _settled(row: int, label: int, given: int, guessed: int, votes: Mapping[str, int]) -> Entry:
    """What the votes say of a row, whose label may have been corrected since."""
    answer = next((a for a in VOTES if votes[a] >= AGREED), None)
    if answer is None:
        return Entry(row, None)
    if answer == "neither":
        return Entry(row, False if label in (given, guessed) else None)
    real = {"given": (given,), "guessed": (guessed,), "both": (given, guessed)}[answer]
    return Entry.of(row, label, real)


def _record(i: int, record: Mapping[str, Any], k: int) -> tuple[str, int, int, Mapping[str, int]]:
    """File name, given and guessed class number, and votes of a record. Raises `ValueError`."""
    url, votes = record.get("url"), record.get("mturk")
    if not isinstance(url, str) or not isinstance(votes, dict):
        raise ValueError(
            f"record {i:,} has the fields {', '.join(map(repr, record))}; expected url, given_original_label, "
            "our_guessed_label and mturk"
        )
    classes = []
    for key in ("given_original_label", "our_guessed_label"):
        code = record.get(key)
        if type(code) is not int or not 0 <= code < k:
            raise ValueError(f"record {i:,}: {key} is {shown(code)}, expected a class number from 0 to {k - 1}")
        classes.append(code)
    for answer in VOTES:
        if type(votes.get(answer)) is not int or votes[answer] < 0:
            raise ValueError(f"record {i:,}: mturk has {shown(votes)}, expected numbers of {', '.join(VOTES)}")
    return url.rpartition("/")[2], classes[0], classes[1], votes


def _class_numbers(manifest: Manifest) -> list[int]:
    """Place of each class among ImageNet's sorted synsets, which a part of them does not tell. Raises `ValueError`."""
    synsets = [m[0] if (m := SYNSET.match(name)) else "" for name in manifest.classes]
    if "" in synsets:
        name = manifest.classes[synsets.index("")]
        raise ValueError(
            f"it numbers the classes of ImageNet, and {manifest.name} has a class {name!r}, expected a synset such as "
            "'n01440764' or 'n01440764 tench'; write a CSV with the columns id and labels"
        )
    if len(synsets) == CLASSES:
        place = {synset: i for i, synset in enumerate(sorted(synsets))}
    else:
        from timm.data.imagenet_info import ImageNetInfo

        place = {synset: i for i, synset in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    if unknown := next((s for s in synsets if s not in place), None):
        raise ValueError(f"{unknown!r} is a class of {manifest.name}, and none of ImageNet's 1,000; use a CSV")
    return [place[s] for s in synsets]
