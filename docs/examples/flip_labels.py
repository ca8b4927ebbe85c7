"""A copy of the planted digits in which some labels are wrong on purpose, and a table of those that are right.

Of every class and split a tenth of the images get the label of another class, drawn at random. Writes noisy.csv, a
table for `embedx extract noisy=csv`, and truth.csv, for `embedx spuriosity review --against`.
"""

import csv
import random
from pathlib import Path

SHARE = 0.1
rows = list(csv.DictReader(Path("cache/planted/manifest.csv").open(encoding="utf-8", newline="")))
classes = sorted({row["label"] for row in rows})
kinds: dict[tuple[str, str], list[dict[str, str]]] = {}
for row in rows:
    kinds.setdefault((row["label"], row["split"]), []).append(row)
truth = [{"id": row["id"], "label": row["label"]} for row in rows]
draw = random.Random(0)
for (label, _), members in sorted(kinds.items()):
    for row in draw.sample(members, round(SHARE * len(members))):
        row["label"] = draw.choice([name for name in classes if name != label])
for file, table in (("noisy.csv", rows), ("truth.csv", truth)):
    with Path(file).open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, table[0].keys())
        writer.writeheader()
        writer.writerows(table)
