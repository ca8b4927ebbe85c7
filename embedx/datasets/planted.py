"""The offline ground truth for spuriosity: digit scans with planted cues of three kinds, whose regions are known.

Five classes: zero, four, seven, eight, nine. An object is a real scan in faint ink on a dull board, but zeros are drawn
large and bright at the bottom, each with a faint bystander, which may be any other digit.

    class  cue                                                                              train, with and without
    seven  mark       a pink dash of 4 by 16 pixels near the lower edge                     220   20
    eight  ground     a texture over the lowest 16 to 22 rows                               220   20
    four   companion  a zero, drawn as those of the class zero: a collision, as only the    144   96
                      faint digit beside it says whether the picture is labelled four
    zero, nine        none                                                                    0  240

Validation and test show every scene of a cued class twice, with the cue and without it, all else the same: what differs
in accuracy between the two is what the cue does. The scans of train, val, test and of the pre-training of the `tiny`
backbones are disjoint, those of bystanders and companions too.

Beside the images of `root` lie masks, white where a region is: `masks/ID/object.png` for the object of the class, and
`masks/ID/CUE.png` for a planted cue, for example `masks/test/seven/0042-0-mark.png/mark.png`. The attribute `cue` says
whether the cue of the class is there and forms the groups; `companion`, `mark` and `ground` say it for each cue.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from embedx.data.manifest import Manifest, build
from embedx.datasets._planted import CLASSES, CUE_OF, DRAWINGS, WITHOUT, deck, paint
from embedx.errors import ManifestError
from embedx.files import landing, write_text

RECIPE = "1"
"""Changes whenever a pixel of a card or mask changes, so that features of older drawings are never taken for these."""

MASKS = "masks"
REGIONS = ("object", *CUE_OF.values())
ABSENT_OR_PRESENT = ("without", "with")


def make(root: Path) -> None:
    """Draw every card that is not there yet, with its masks, below `root`; all of them when the recipe changed."""
    done = root / "recipe.txt"
    cards = list(deck())
    if done.exists() and done.read_text(encoding="utf-8") == RECIPE:
        cards = [c for c in cards if not all(path.exists() for path in (root / c.id, *_mask_paths(root, c.id, c.cue)))]
    if not cards:
        return
    done.unlink(missing_ok=True)  # until all are of one recipe: a kill from here on means drawing them all
    for folder in {(root / c.id).parent for c in cards}:
        folder.mkdir(parents=True, exist_ok=True)
    for card in cards:
        picture, regions = paint(card)
        (root / MASKS / card.id).mkdir(parents=True, exist_ok=True)
        for path in _mask_paths(root, card.id, card.cue):
            _write(np.where(regions[path.stem], np.uint8(255), np.uint8(0)), path)
        _write(picture, root / card.id)
    os.sync()  # one for all: the recipe says that every card is whole
    write_text(done, RECIPE)


def read(root: Path) -> Manifest:
    """The manifest of the cards, with their known counts."""
    cards = deck()
    columns = {
        "id": [c.id for c in cards],
        "label": [c.label for c in cards],
        "split": [c.split for c in cards],
        "cue": [ABSENT_OR_PRESENT[bool(c.cue)] for c in cards],
    } | {cue: [ABSENT_OR_PRESENT[c.cue == cue] for c in cards] for cue in CUE_OF.values()}
    return build(
        "planted", columns, classes=CLASSES, values=dict.fromkeys(("cue", *CUE_OF.values()), ABSENT_OR_PRESENT),
        grouping=("cue",), version=RECIPE, root=str(root.resolve()), expected=_expected(),
        source="scikit-learn's copy of the UCI optical recognition of handwritten digits data set", licence="CC BY 4.0",
    )  # fmt: skip


def masks(root: str | Path, row_id: str) -> Mapping[str, np.ndarray]:
    """Where things are in one image: {region: bool (64, 64)}, "object" always and the name of its cue if it has one.

    root   the folder that the ids are relative to: `manifest.root`, or `images` in the dataset's folder of the cache

    Only what can be seen counts: pixels of the object that its cue covers belong to the cue. Raises `ManifestError`
    for an id without masks.
    """
    from PIL import Image

    folder = Path(root) / MASKS / row_id
    if not (folder / "object.png").is_file():
        raise ManifestError(
            f"{folder} holds no object.png; expected an id of the dataset planted below the folder of its images, "
            "which `embedx extract planted` draws"
        )
    files = {region: folder / f"{region}.png" for region in REGIONS}
    return {region: np.asarray(Image.open(path)) > 0 for region, path in files.items() if path.is_file()}


def _expected() -> dict[str, int]:
    """The counts by the description above, not by the cards."""
    counts: dict[str, int] = {}
    for split, scans in (("train", 40), ("val", 20), ("test", 64)):
        for label in CLASSES:
            rows = scans * DRAWINGS[split] * (1 if split == "train" else 2)
            without = rows if label not in CUE_OF else WITHOUT[CUE_OF[label]] if split == "train" else rows // 2
            counts |= {f"{split}/{label}/without": without, f"{split}/{label}/with": rows - without}
    return counts


def _mask_paths(root: Path, row_id: str, cue: str) -> list[Path]:
    return [root / MASKS / row_id / f"{region}.png" for region in ("object", cue) if region]


def _write(pixels: np.ndarray, path: Path) -> None:
    from PIL import Image

    with landing(path, synced=False) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG", compress_level=1)
