"""`tuning.json`, all accuracies and gaps as fractions, every interval {value, low, high, n} at 95 %:

format, version  "embedx-tuning", 1
ranking          backbone and digest of the ranking that all of them go by
models           one of `Tuning` for each model, its fields by name; `results` holds `Result`, the untouched head
                 first, `front` in it `Point`, `gap` and other figures `_changes.Figure` (value, change, trials),
                 `detail` the `gap.Gaps` of the first trial; `rivals` holds `Rival`
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedx.errors import SpuriosityError
from embedx.evaluation.records import Notice, kept
from embedx.files import locked, write_text

if TYPE_CHECKING:
    from embedx.spuriosity.measures.tuning import Tuning
    from embedx.spuriosity.records.ranking import Ranking

FORMAT, VERSION, FILE = "embedx-tuning", 1, "tuning.json"


def add(folder: Path, ranking: Ranking, found: Sequence[Tuning], notice: Notice) -> Path:
    """Add models to `tuning.json`, whoever else adds to it.

    Models tuned before by the same ranking stay, one that is tuned again is replaced, as is its head; by another
    ranking than before nothing can stay. `notice` is told of every figure that goes. Raises `SpuriosityError` for a
    file that cannot be read.
    """
    path, by = folder / FILE, {"backbone": ranking.backbone, "digest": ranking.digest}
    folder.mkdir(parents=True, exist_ok=True)
    with locked(path):
        before = load(path) if path.is_file() else {"models": [], "ranking": by}
        foreign = "" if before.get("ranking") == by else "by another ranking"
        fresh = json.loads(json.dumps([asdict(t) for t in found], allow_nan=False))
        stay = kept(path, before["models"], fresh, lambda t: f"{t['backbone']}={t['head']}", notice, foreign=foreign)
        document = {"format": FORMAT, "version": VERSION, "ranking": by, "models": [*fresh, *stay]}
        write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
    return path


def load(file: Path) -> Mapping[str, Any]:
    """What `tuning.json` holds. Raises `SpuriosityError` for what is foreign, newer or damaged."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if (kind := (document["format"], document["version"])) != (FORMAT, VERSION):
            raise ValueError(f"found {kind[0]!r} {kind[1]!r}, expected {FORMAT} version {VERSION}")
        if any({"dataset", "backbone", "head", "results"} - m.keys() for m in document["models"]):
            raise ValueError("a model without dataset, backbone, head or results")
        return document
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpuriosityError(
            f"{file} cannot be read ({error}); move it away and run `embedx spuriosity tune` again"
        ) from error
