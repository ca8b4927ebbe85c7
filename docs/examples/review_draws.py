"""Does the review find wrong labels, draw after draw? On the planted digits, with labels that are wrong at random.

Needs cache/planted with features of tiny:broad, and noisy-truth.csv of flip_labels.py. For each share of wrong labels
and each draw all steps of the analysis are made anew. Prints of each draw how many of the images that the rule of
negative gaps lists are labelled wrongly, and of each order the precision at as many images as there are errors.
"""

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import embedx
from embedx.spuriosity.measures.label_noise import CONFIDENT, PROBABILITY, REVIEW

DRAWS, SHARES = 4, (0.03, 0.1, 0.25)
lines = csv.DictReader(Path("noisy-truth.csv").read_text(encoding="utf-8").splitlines())
truth = {line["id"]: line["labels"].split(";") for line in lines}
print(
    "share  draw  errors  negative gap    review  confident learning  label probability  AUROC over confident learning"
)
for share in SHARES:
    for draw in range(DRAWS):
        with TemporaryDirectory() as folder:
            place = embedx.Workspace(Path(folder) / "cache")
            place.dataset("planted").mkdir(parents=True)
            for name in ("manifest.csv", "manifest.json", "tiny-broad.h5"):
                shutil.copy(Path("cache/planted") / name, place.dataset("planted") / name)
            manifest = embedx.open_dataset("planted", workspace=place, notice=lambda text: None)
            rng, labels = np.random.default_rng(draw), manifest.labels.copy()
            for i in np.flatnonzero(rng.random(len(manifest)) < share):
                others = [c for c, name in enumerate(manifest.classes) if name not in truth[manifest.ids[i]]]
                labels[i] = rng.choice(others)
            analysis = embedx.Analysis.open(place, replace(manifest, labels=labels), "tiny:broad", Path(folder) / "out")
            embedx.discover(analysis, seeds=1)
            embedx.annotate(analysis, attributes=["mark", "ground", "companion"])
            embedx.rank(analysis)
            embedx.gap(analysis)
            real = embedx.read_real_labels(Path("noisy-truth.csv"), analysis.manifest)
            check = embedx.check_review(analysis, embedx.review(analysis, images=0), real)
        whole = check.parts[0]
        orders = [order for name in (REVIEW, CONFIDENT, PROBABILITY) if (order := whole.order(name))]
        found = [first.precision for order in orders if (first := order.at(whole.errors))]
        negative = next((g for g in check.groups if "flagged: negative" in g.name), None)
        listed = f"{negative.wrong.value * negative.n:.0f} of {negative.n}" if negative else "none listed"
        beyond = orders[0].beyond
        assert beyond is not None
        print(
            f"{share:5.0%} {draw:5d} {whole.errors:7d}  {listed:>12}  {100 * found[0].value:5.1f} %  "
            f"{100 * found[1].value:16.1f} %  {100 * found[2].value:15.1f} %   "
            f"{beyond.value:+.3f} ({beyond.low:+.3f} to {beyond.high:+.3f})"
        )
