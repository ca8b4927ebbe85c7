"""Fitted linear heads on disk: the numbers as safetensors, what they are of as JSON beside it. Never a pickle.

`NAME.safetensors` holds `coef` (1 or k, d), `intercept` (1 or k,), `mean` and `scale` (d,), all float64: the logit of
a row x is coef @ ((x - mean) / scale) + intercept. `NAME.json` holds the format, the classes in order, the identity of
the backbone (everything that decides its features), and the record of the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedx.errors import HeadError, ProvenanceError
from embedx.files import landing, write_text
from embedx.home import slug
from embedx.runs import Run
from embedx.store import FeatureCache
from probes._machinery import Head, LinearHead, probabilities

FORMAT = "embedx-head"
VERSION = 1
SUFFIX = ".safetensors"
ARRAYS = ("coef", "intercept", "mean", "scale")


@dataclass(frozen=True, eq=False)
class SavedHead:
    """A linear head as it was saved; `identity` is that of the backbone whose features it takes."""

    arrays: Mapping[str, np.ndarray]
    classes: tuple[str, ...]
    dataset: str
    backbone: str
    identity: Mapping[str, Any]
    run: Mapping[str, Any]

    @property
    def dim(self) -> int:
        return self.arrays["coef"].shape[1]

    def probabilities(self, X: np.ndarray) -> np.ndarray:
        """(n, k) class probabilities of features X (n, dim)."""
        W = self.arrays["coef"] / self.arrays["scale"]
        logits = X.astype(np.float64) @ W.T + (self.arrays["intercept"] - W @ self.arrays["mean"])
        return probabilities(logits[:, 0] if len(self.arrays["coef"]) == 1 else logits)

    def check(self, cache: FeatureCache) -> None:
        """Refuse features of another backbone, of other weights or another transform: `ProvenanceError`."""
        expected, found = dict(self.identity) | {"dim": self.dim}, _identity(cache) | {"dim": cache.header.dim}
        wrong = [
            f"{key} is {_short(found.get(key))}, expected {_short(expected.get(key))}"
            for key in sorted({*expected, *found})
            if found.get(key) != expected.get(key)
        ]
        if wrong:
            raise ProvenanceError(
                f"{cache.path} does not hold the features that the head was fitted on ({self.backbone}): "
                f"{'; '.join(wrong)}; extract the dataset with that backbone, or fit a head on these features"
            )

    def apply(self, cache: FeatureCache) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Blocks of (ids, status, probabilities) of all rows of a cache, which is checked first."""
        self.check(cache)
        for rows in cache.chunks():
            yield (
                np.array([i.decode() for i in np.asarray(rows.ids)], dtype=object),
                rows.status,
                self.probabilities(rows.features),
            )


def savable(head: Head) -> bool:
    """Whether a head is W x + b and nothing else."""
    return isinstance(head, LinearHead) and type(head).decision_function is LinearHead.decision_function


def save(head: Head, run: Run, cache: FeatureCache, classes: tuple[str, ...], folder: Path) -> Path:
    """Write a fitted head and its record, each file whole or not at all; returns the safetensors file.

    Raises `HeadError` for a head that is not linear, which is more than a few arrays.
    """
    if not savable(head):
        raise HeadError(
            f"head {run.head!r} is not linear, and only linear heads can be saved; fit it again when needed"
        )
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{file_name(run)}{SUFFIX}"
    arrays = {name: np.ascontiguousarray(getattr(head, f"{name}_"), dtype=np.float64) for name in ARRAYS}
    document = {
        "format": FORMAT, "version": VERSION, "dataset": run.dataset, "backbone": run.backbone,
        "identity": _identity(cache), "classes": list(classes), "run": run.to_dict(),
    }  # fmt: skip
    write_text(file.with_suffix(".json"), json.dumps(document, indent=1, allow_nan=False) + "\n")
    with landing(file) as temporary:
        save_file(arrays, temporary)
    return file


def _identity(cache: FeatureCache) -> dict[str, Any]:
    """What decides a backbone's features; the version of the dataset does not."""
    return {key: value for key, value in cache.header.identity.items() if key != "dataset_version"}


def file_name(run: Run) -> str:
    """`clip-vit-b16.group-balanced.0` for seed 0."""
    return f"{slug(run.backbone)}.{slug(run.head)}.{run.seed}"


def load(file: Path) -> SavedHead:
    """Read a head by either of its files. Raises `HeadError` for what is missing, foreign, newer or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    base = file.with_name(file.name.removesuffix(SUFFIX).removesuffix(".json"))
    numbers, words = base.with_name(base.name + SUFFIX), base.with_name(base.name + ".json")
    for path in (numbers, words):
        if not path.is_file():
            raise HeadError(f"{path} does not exist; a saved head is two files, {base.name}{SUFFIX} and {words.name}")
    try:
        document = json.loads(words.read_text(encoding="utf-8"))
        kind = (document.get("format"), document.get("version"))
        arrays = load_file(numbers)
    except (ValueError, AttributeError, SafetensorError) as error:
        raise HeadError(f"{file} is no saved head ({str(error).partition(chr(10))[0]}); save it again") from error
    if kind != (FORMAT, VERSION):
        raise HeadError(f"{words}: expected {FORMAT} version {VERSION}, found {kind[0]!r} {kind[1]!r}; save it again")
    facts = {key: document[key] for key in ("dataset", "backbone", "identity", "run")}
    head = SavedHead(arrays, tuple(document["classes"]), **facts)
    _check(head, numbers)
    return head


def _check(head: SavedHead, file: Path) -> None:
    if set(head.arrays) != set(ARRAYS):
        raise HeadError(f"{file} holds {', '.join(sorted(head.arrays))}, expected {', '.join(ARRAYS)}; save it again")
    k = len(head.classes)
    outputs = 1 if k == 2 else k
    d = head.arrays["coef"].shape[-1]
    shapes = {"coef": (outputs, d), "intercept": (outputs,), "mean": (d,), "scale": (d,)}
    for name, shape in shapes.items():
        if (found := head.arrays[name].shape) != shape or not np.isfinite(head.arrays[name]).all():
            raise HeadError(f"{file}: {name} is {found} or not finite, expected finite {shape}; save it again")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:40] + "…" + text[-12:]
