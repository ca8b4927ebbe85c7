"""The record of a panel, `panel.json`, and of all panels of an analysis, `panels.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedx.errors import SpuriosityError
from embedx.files import write_text
from embedx.statistics import Interval

FORMAT, VERSION = "embedx-panels", 1
FILE, PANEL = "panels.json", "panel.json"


@dataclass(frozen=True)
class Shot:
    """One image of a panel: its files below the folder of the analysis, and its activation.

    end       "most" or "least"
    attacked  activation after the feature attack; None where there was none
    """

    id: str
    end: str
    activation: float
    image: str
    overlay: str
    attack: str | None = None
    attacked: float | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of a class and a feature.

    label       class code; class_name, rank, importance, share, gap as in the discovery
    n           training rows of the class; mean of their activations
    edges, counts  histogram of these: (b + 1,), (b,)
    elsewhere   other classes among whose most important features this one is
    histogram, sheet  files: the histogram as SVG, and all pictures on one sheet
    identity    digest of everything that the files follow from
    """

    label: int
    class_name: str
    feature: int
    rank: int
    importance: float
    share: float
    gap: Interval | None
    n: int
    mean: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    elsewhere: tuple[str, ...]
    shots: tuple[Shot, ...]
    histogram: str
    sheet: str
    identity: str

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Panel:
        """The inverse of `dataclasses.asdict`."""
        gap = found["gap"] and Interval(**found["gap"])
        lists = {key: tuple(found[key]) for key in ("edges", "counts", "elsewhere")}
        changed: dict[str, Any] = lists | {"gap": gap, "shots": tuple(Shot(**shot) for shot in found["shots"])}
        return cls(**(found | changed))

    @property
    def record(self) -> str:
        """Its own record, beside its files, for which it vouches."""
        return f"{self.sheet.rpartition('/')[0]}/{PANEL}"


@dataclass(frozen=True)
class Panels:
    """All panels of a discovery; `weights` as in its caches, `layer` the module whose maps are shown."""

    dataset: str
    backbone: str
    weights: str
    layer: str
    panels: tuple[Panel, ...]

    def save(self, folder: Path) -> Path:
        """Write `panels.json`."""
        document = {"format": FORMAT, "version": VERSION, **asdict(self)}
        write_text(folder / FILE, json.dumps(document, indent=1, allow_nan=False) + "\n")
        return folder / FILE

    @classmethod
    def load(cls, folder: Path) -> Panels:
        """Read `panels.json`. Raises `SpuriosityError` for what is missing, foreign or newer.

        So does a panel whose files are those of another pass, one that was killed, or is under way: what it was drawn
        from is compared with the record beside its files.
        """
        file = folder / FILE
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            kind = (found.pop("format"), found.pop("version"))
            if kind != (FORMAT, VERSION):
                raise SpuriosityError(f"{file}: found {kind[0]!r} {kind[1]!r}, expected {FORMAT} version {VERSION}")
            panels = tuple(map(Panel.from_dict, found["panels"]))
            if odd := [p for p in panels if _identity(folder / p.record) != p.identity]:
                raise SpuriosityError(
                    f"{file} is not of the pictures there are: {len(odd):,} of {len(panels):,} panels were drawn anew, "
                    f"or begun, since (for example {odd[0].record}); run `embedx spuriosity panels {found['dataset']} "
                    f"-b {found['backbone']}` again"
                )
            return cls(**found | {"panels": panels})
        except FileNotFoundError as error:
            raise SpuriosityError(f"{file} does not exist: draw them with `embedx spuriosity panels`") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SpuriosityError(f"{file} cannot be read ({error}); delete it and draw the panels again") from error


def _identity(file: Path) -> str | None:
    """That of the files in a panel's folder; None where no pass has finished there."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
