"""The record of a panel, `panel.json`, and of all panels of an analysis, `panels.json`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from embedx.documents import Kind
from embedx.errors import SpuriosityError
from embedx.statistics import Interval

FILE, PANEL = "panels.json", "panel.json"
COMMAND = "embedx spuriosity panels"


@dataclass(frozen=True)
class Shot:
    """One image of a panel: its files below the folder of the analysis, and its activation.

    end       "most" or "least"; "following", after the most, and "border", the weakest of the upper share of the class,
              where those were asked for
    activation  of the feature, as in the cache
    image     the picture; overlay: with the map of the feature; attack: after the feature attack
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

    rank, importance, share, gap as in the discovery
    n           training rows of the class; mean of their activations
    edges, counts  histogram of these: (b + 1,), (b,)
    elsewhere   other classes among whose most important features this one is
    shots       the images, the strongest of either end first
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

    @property
    def record(self) -> str:
        """Its own record, beside its files, for which it vouches."""
        return f"{self.sheet.rpartition('/')[0]}/{PANEL}"


ONE = Kind(
    Panel, f"panels/CLASS/FEATURE/{PANEL}", COMMAND, SpuriosityError, "embedx-panel", 2, unmarked=1,
    steps={1: lambda values: values},
)  # fmt: skip


@dataclass(frozen=True)
class Panels:
    """All panels of a discovery.

    layer   the module whose maps are shown
    panels  one for each class and feature
    """

    dataset: str
    backbone: str
    weights: str
    layer: str
    panels: tuple[Panel, ...]

    def save(self, folder: Path) -> Path:
        """Write `panels.json`."""
        ALL.write(folder / FILE, self)
        return folder / FILE

    @classmethod
    def load(cls, folder: Path) -> Panels:
        """Read `panels.json`. Raises `SpuriosityError` for what is missing, foreign or newer.

        So does a panel whose files are those of another pass, one that was killed, or is under way: what it was drawn
        from is compared with the record beside its files.
        """
        file = folder / FILE
        panels = ALL.read(file)
        if odd := [p for p in panels.panels if not (there := drawn(p, folder)) or there.identity != p.identity]:
            raise SpuriosityError(
                f"{file} is not of the pictures there are: {len(odd):,} of {len(panels.panels):,} panels were drawn "
                f"anew, or begun, since (for example {odd[0].record}); run `{COMMAND} {panels.dataset} "
                f"-b {panels.backbone}` again"
            )
        return panels


ALL = Kind(Panels, FILE, COMMAND, SpuriosityError, "embedx-panels", 1)


def drawn(panel: Panel, folder: Path) -> Panel | None:
    """The record beside a panel's files; None where no pass has finished there."""
    with suppress(OSError, SpuriosityError):
        return ONE.read(folder / panel.record)
    return None
