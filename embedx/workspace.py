"""Where things lie: one folder per dataset under the cache folder, one file per backbone in it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDER, VARIABLE = "cache", "EMBEDX_CACHE"
"""The cache folder, and the variable of the environment that names another one."""
SUFFIX = ".h5"
TEXTS = "_texts"


@dataclass(frozen=True)
class Workspace:
    """The cache folder and the places in it. Holds paths only; touches no file.

    path  by default what $EMBEDX_CACHE names, else `cache` in the folder where the program runs
    """

    path: Path = field(default_factory=lambda: Path(os.environ.get(VARIABLE) or FOLDER))

    def dataset(self, name: str) -> Path:
        """The folder of a dataset: its manifest and its caches."""
        return self.path / slug(name)

    def cache(self, dataset: str, backbone: str) -> Path:
        """The finished feature cache of one backbone."""
        return self.dataset(dataset) / f"{slug(backbone)}{SUFFIX}"

    def shards(self, dataset: str, backbone: str) -> Path:
        """The folder of shards of an extraction under way; gone once they are merged."""
        return self.dataset(dataset) / f"{slug(backbone)}.shards"

    def texts(self, backbone: str) -> Path:
        """The cached features of prompts; in a folder without a manifest, which is no dataset."""
        return self.path / TEXTS / f"{slug(backbone)}{SUFFIX}"

    def datasets(self) -> tuple[str, ...]:
        """Names of the prepared datasets: folders that hold a manifest."""
        return tuple(sorted(p.parent.name for p in self.path.glob("[!.]*/manifest.json")))

    def backbones(self, dataset: str) -> tuple[str, ...]:
        """Names of the backbones with a finished cache, as file names spell them."""
        return tuple(sorted(p.stem for p in self.dataset(dataset).glob(f"[!.]*{SUFFIX}")))


def slug(name: str) -> str:
    """A name as a file name: `timm:resnet50.tv_in1k` becomes `timm-resnet50.tv_in1k`; letters of any script stay."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "unnamed"
