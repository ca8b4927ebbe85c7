"""Small datasets on the disk, and the study over them that tests run, kill and edit."""

import numpy as np
from PIL import Image

BACKBONES = ("raw:2x2", "raw:4x4", "raw:8x8", "half=raw:4x8")
HEADS = ("plain", "class-balanced", "reweighted", "group-balanced", "nearest-mean")
STUDY = """\
question = "Which head is best on small pictures?"
backbones = ["raw:2x2", "raw:4x4", "raw:8x8", "half=raw:4x8"]
heads = ["plain", "class-balanced", {head = "reweighted", C = [0.1]}, "group-balanced", "nearest-mean"]

[datasets.near]
source = "csv"
root = "near.csv"
name = "near"
options = {label = "label", attributes = "place"}

[datasets.far]
source = "csv"
root = "far.csv"
name = "far"
options = {label = "label", attributes = "place"}

[datasets.pale]
source = "csv"
root = "pale.csv"
name = "pale"
options = {label = "label", attributes = "place"}

[small]
backbones = ["raw:2x2"]
datasets.pale = {}
"""
COUNTS = {"train": (24, 6, 6, 24), "val": (8,) * 4, "test": (12,) * 4}  # cat/in, cat/out, dog/in, dog/out


def write_datasets(folder):
    """Three tables of 8 x 8 pictures: the left half tells the label, weakly, the right half the place."""
    for seed, name in enumerate(("near", "far", "pale")):
        rng, lines = np.random.default_rng(seed), ["path,label,place,split"]
        (folder / name).mkdir()
        for split, counts in COUNTS.items():
            for kind, n in enumerate(counts):
                for i in range(n):
                    label, place = divmod(kind, 2)
                    row = f"{name}/{split}-{kind}-{i}.png"
                    pixels = rng.integers(0, 120 + 40 * seed, (8, 8, 3))
                    pixels[:, :4] += 40 * label
                    pixels[:, 4:] += 55 * place
                    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / row)
                    lines.append(f"{row},{('cat', 'dog')[label]},{('in', 'out')[place]},{split}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    (folder / "mine.toml").write_text(STUDY)
