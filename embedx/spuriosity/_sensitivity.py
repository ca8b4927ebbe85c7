"""The record of targeted corruptions, `sensitivity.json`, and how far models agree."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from embedx.errors import SpuriosityError
from embedx.files import write_text
from embedx.metrics import LEVEL, Interval

FORMAT, VERSION = "embedx-sensitivity", 1
FILE = "sensitivity.json"


@dataclass(frozen=True)
class Sensitivity:
    """One model, pair and kind of corruption, on the same images before and after.

    before, after  accuracy; drop: before minus after, below 0 where the corruption helps; n images
    relative       drop as a share of `before`; None where no image was right before
    area           mean share of the image that was corrupted
    """

    model: str
    label: int
    class_name: str
    feature: int
    role: str
    kind: str
    before: float
    after: float
    drop: Interval
    relative: float | None
    area: float


@dataclass(frozen=True)
class Sensitivities:
    """All of an analysis; backbone and weights are those whose features were corrupted, `settings` as in `Options`."""

    dataset: str
    backbone: str
    weights: str
    settings: Mapping[str, Any]
    found: tuple[Sensitivity, ...]

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s.model for s in self.found))

    def agreement(self, a: str, b: str, kind: str | None = None) -> Interval | None:
        """Pearson correlation over pairs and kinds (or one kind) of two models' drops, as if pairs were independent.

        The interval is Fisher's: tanh(atanh(r) -+ z / sqrt(n - 3)). None for fewer than four, or drops all the same.
        """
        drops = [
            {(s.label, s.feature, s.kind): s.drop.value for s in self.found if s.model == m and kind in (None, s.kind)}
            for m in (a, b)
        ]
        x, y = (np.array([of[key] for key in drops[0] if key in drops[1]]) for of in drops)
        if len(x) < 4 or not x.std() or not y.std():
            return None
        r = float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1))
        middle, half = math.atanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)), ndtri((1 + LEVEL) / 2) / math.sqrt(len(x) - 3)
        return Interval(r, min(r, math.tanh(middle - half)), max(r, math.tanh(middle + half)), len(x))

    def save(self, folder: Path) -> Path:
        """Write `sensitivity.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        document = {"format": FORMAT, "version": VERSION, **asdict(self)}
        write_text(folder / FILE, json.dumps(document, indent=1, allow_nan=False) + "\n")
        return folder / FILE

    @classmethod
    def load(cls, folder: Path) -> Sensitivities:
        """Read `sensitivity.json`. Raises `SpuriosityError` for what is missing, foreign or newer."""
        file = folder / FILE
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            kind = (found.pop("format"), found.pop("version"))
            if kind != (FORMAT, VERSION):
                raise SpuriosityError(f"{file}: found {kind[0]!r} {kind[1]!r}, expected {FORMAT} version {VERSION}")
            rows = tuple(Sensitivity(**s | {"drop": Interval(**s["drop"])}) for s in found["found"])
            return cls(**found | {"found": rows})
        except FileNotFoundError as error:
            raise SpuriosityError(f"{file} does not exist: run `embedx spuriosity corrupt`") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SpuriosityError(f"{file} cannot be read ({error}); delete it and corrupt again") from error


def paired(tally: np.ndarray) -> tuple[float, float, Interval, float | None]:
    """before, after, drop and relative of a table (2, 2): images by right before (0, 1) and right after (0, 1).

    The interval is Bonett and Price's of 2012, for two answers on the same images: with l images lost, g gained and
    L = (l + 1) / (n + 2), G = (g + 1) / (n + 2) it is L - G -+ z sqrt((L + G - (L - G)^2) / (n + 2)).
    """
    n, lost, gained = int(tally.sum()), int(tally[1, 0]), int(tally[0, 1])
    before, after = float(tally[1].sum() / n), float(tally[:, 1].sum() / n)
    more, less = (lost + 1) / (n + 2), (gained + 1) / (n + 2)
    half = float(ndtri((1 + LEVEL) / 2)) * math.sqrt((more + less - (more - less) ** 2) / (n + 2))
    low, high = max(-1.0, more - less - half), min(1.0, more - less + half)
    drop = (lost - gained) / n
    return before, after, Interval(drop, low, high, n), drop / before if before else None
