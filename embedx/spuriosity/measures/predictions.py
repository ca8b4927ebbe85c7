"""What a model predicts on the rows of one split; read in blocks, so that any cache will do.

One backbone may rank the rows and the models of any others predict on them: predictions carry ids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import SplitError
from embedx.evaluation.model import Model, ModelName
from embedx.spuriosity.features.activations import stream
from embedx.store import FeatureCache


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of one model on the rows of one split that could be extracted.

    backbone, head  the two parts of the model's name
    ids        (n,) in the order of the manifest
    y          (n,) labels, codes of `classes`; `predicted` (n,) likewise
    left_out   rows of the split that could not be extracted
    """

    dataset: str
    backbone: str
    head: str
    split: str
    classes: tuple[str, ...]
    ids: np.ndarray
    y: np.ndarray
    predicted: np.ndarray
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.y)

    @property
    def correct(self) -> np.ndarray:
        """(n,) bool."""
        return self.predicted == self.y

    @property
    def model(self) -> str:
        """The model's name, as `--model` takes it."""
        return str(ModelName(self.backbone, self.head))


def predictions(manifest: Manifest, cache: FeatureCache, model: Model, split: str = "test") -> Predictions:
    """What a model predicts on one split, in the classes of the manifest.

    A linear model reads no more than a block of features at a time; any other takes those of the whole split.

    Raises `ProvenanceError` or `HeadError` for a model that is not of this backbone or not for these classes, and
    `SplitError` for a split without usable rows.
    """
    model = model.for_manifest(manifest, cache)
    wanted = manifest.splits == SPLITS.index(split)
    blocks = [(rows, model.predict(X)) for rows, X in model.blocks(stream(manifest, cache, wanted))]
    if not blocks:
        raise SplitError(f"{manifest.name}: the {split} split has no usable row in {cache.path}; choose another split")
    rows, predicted = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return Predictions(
        manifest.name, model.name.backbone, model.name.head, split, manifest.classes, manifest.ids[rows],
        manifest.labels[rows], predicted, int(np.count_nonzero(wanted)) - len(rows),
    )  # fmt: skip
