"""The offline demo: 1,797 real handwritten digits over generated land and water, a Waterbirds in miniature.

The label is a low digit (0-4) or a high one (5-9), the attribute the background: in train 95 % of the low digits lie
on land and 95 % of the high ones on water; validation and test show every scan once over each. The scans behind
train, val, test and the pre-training of the `tiny` backbones are disjoint.

-O correlation  0.95: this share of the 200 training images of a class lies over its usual background; 0.5: half
-O draw         0: which of them do not. Validation and test are the same for every draw and correlation.
"""

from __future__ import annotations

import os
from pathlib import Path

from embedx.data.digits import BACKGROUNDS, CLASSES, TRAINING, deck, paint
from embedx.data.manifest import Manifest, build
from embedx.errors import ManifestError
from embedx.files import landing, write_text

RECIPE = "2"
"""Changes whenever a pixel of any card changes, so that features of older drawings are never taken for these."""


def make(root: Path, correlation: str = "0.95", draw: str = "0") -> None:
    """Draw every card that is not there yet as a PNG file below `root`; all of them when the recipe changed."""
    from PIL import Image

    done = root / "recipe.txt"
    cards = deck(_against(correlation), _whole(draw))
    if done.exists() and done.read_text(encoding="utf-8") == RECIPE:
        cards = [c for c in cards if not (root / c.id).exists()]
    if not cards:
        return
    done.unlink(missing_ok=True)  # until all are of one recipe: a kill from here on means drawing them all
    for folder in {(root / c.id).parent for c in cards}:
        folder.mkdir(parents=True, exist_ok=True)
    for card in cards:
        with landing(root / card.id, synced=False) as temporary:
            Image.fromarray(paint(card)).save(temporary, "PNG", compress_level=1)
    os.sync()  # one for all: the recipe says that every card is whole
    write_text(done, RECIPE)


def read(root: Path, correlation: str = "0.95", draw: str = "0") -> Manifest:
    """The manifest of the cards, with their known counts. Raises `ManifestError` for an option it cannot read."""
    against = _against(correlation)
    cards = deck(against, _whole(draw))
    columns = {
        "id": [c.id for c in cards],
        "label": [c.label for c in cards],
        "split": [c.split for c in cards],
        "background": [c.background for c in cards],
    }
    usual = TRAINING - against
    counts = {"train": (usual, against, against, usual), "val": (100,) * 4, "test": (320,) * 4}
    groups = [f"{c}/{b}" for c in CLASSES for b in BACKGROUNDS]
    return build(
        "demo", columns, classes=CLASSES, values={"background": BACKGROUNDS}, version=RECIPE, root=str(root.resolve()),
        source="scikit-learn's copy of the UCI optical recognition of handwritten digits data set", licence="CC BY 4.0",
        expected={f"{s}/{g}": n for s, row in counts.items() for g, n in zip(groups, row, strict=True)},
    )  # fmt: skip


def _against(correlation: str) -> int:
    """Training images of a class over the other one's background."""
    try:
        exact = TRAINING * (1 - float(correlation))
    except ValueError:
        exact = -1.0
    if not 0 <= exact <= TRAINING or abs(exact - round(exact)) > 1e-6:
        raise ManifestError(
            f"-O correlation={correlation}: expected a share of the {TRAINING} training images of a class, from 0 to 1 "
            f"in steps of {1 / TRAINING:g}"
        )
    return round(exact)


def _whole(draw: str) -> int:
    if not draw.isdecimal():
        raise ManifestError(f"-O draw={draw}: expected a whole number, such as 0")
    return int(draw)
