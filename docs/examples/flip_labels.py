"""Copies of the planted digits in which labels are wrong on purpose, with tables of the labels that are right.

noisy.csv      of every class and split a tenth of the images get the label of another class, drawn at random
collided.csv   of every split a quarter of the zeros are called fours, as fours with a zero beside them are common

Each is a table for `embedx extract NAME=csv`. noisy-truth.csv and collided-truth.csv are for `embedx spuriosity review
--against`: a four that has a zero beside it shows both, so its real labels are four;zero.
"""

import csv
import random
from pathlib import Path

Row = dict[str, str]
rows: list[Row] = list(csv.DictReader(Path("cache/planted/manifest.csv").read_text(encoding="utf-8").splitlines()))
classes = sorted({row["label"] for row in rows})
kinds: dict[tuple[str, str], list[Row]] = {}
for row in rows:
    kinds.setdefault((row["label"], row["split"]), []).append(row)


def shown(row: Row) -> list[str]:
    """The labels that an image really has."""
    return [row["label"], *(["zero"] if row["companion"] == "with" else [])]


def write(file: str, table: list[Row]) -> None:
    with Path(file).open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, table[0].keys())
        writer.writeheader()
        writer.writerows(table)


draw = random.Random(0)
noisy, collided = ({row["id"]: row["label"] for row in rows} for _ in range(2))
for (label, _), members in sorted(kinds.items()):
    for row in draw.sample(members, len(members) // 10):
        noisy[row["id"]] = draw.choice([name for name in classes if name not in shown(row)])
    for row in draw.sample(members, len(members) // 4 if label == "zero" else 0):
        collided[row["id"]] = "four"
for name, labels in (("noisy", noisy), ("collided", collided)):
    write(f"{name}.csv", [row | {"label": labels[row["id"]]} for row in rows])
    write(f"{name}-truth.csv", [{"id": row["id"], "labels": ";".join(shown(row))} for row in rows])
