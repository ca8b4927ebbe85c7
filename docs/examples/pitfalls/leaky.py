"""leaky.csv: the demo with a copy of every second test image among the training images, under another name."""

import shutil
from pathlib import Path

import pandas as pd

table = pd.read_csv("cache/demo/manifest.csv").rename(columns={"id": "path"})
copies = table[table.split == "test"].iloc[::2].copy()
copies["split"] = "train"
shutil.copytree("cache/demo/images", "leaky", dirs_exist_ok=True)
for path in copies.path:
    copy = Path("leaky", path.replace("test/", "train/copy-of-"))
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path("leaky", path), copy)
copies["path"] = copies.path.str.replace("test/", "train/copy-of-")
pd.concat([table, copies]).to_csv("leaky.csv", index=False)
