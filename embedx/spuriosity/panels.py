"""Panels: for every class and feature the images that show it most and least, with maps, and what else is known of it.

The images are chosen from the cached features alone; then one pass opens those images, each once, and draws. Every pair
has a folder `panels/CLASS/FEATURE`, and its `panel.json`, written last, vouches for the files beside it: a pass that
was killed goes on where it was. `panels.json` holds all of them. A map is divided by its own largest value, which hides
how strong the feature is: the activation stands beside every picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedx.data.manifest import SPLITS
from embedx.errors import SpuriosityError
from embedx.evaluation.records import Notice, alone
from embedx.files import write_text
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.features.activations import Progress, columns, silent, table
from embedx.spuriosity.features.image_inspection import ImageInspector
from embedx.spuriosity.features.maps import STEPS, Mapper, attack, nam
from embedx.spuriosity.pages.drawing import histogram, land, overlay, picture, sheet
from embedx.spuriosity.records.discovery import Candidate
from embedx.spuriosity.records.panel import ALL, FILE, ONE, PANEL, Panel, Panels, Shot, drawn
from embedx.workspace import slug

FOLDER = "panels"
BINS = 20
LONGEST_NAME = 200
"""Bytes of a class name in the name of a folder; file systems take 255."""
LOOK = 1
"""Counts the changes of how pictures look, which have them drawn again."""


@dataclass(frozen=True)
class PanelSettings:
    """How to draw.

    images   of either end, for a class of enough rows; no image is in both
    size     longer side of a picture, in pixels
    attacks  also amplify the feature in the images that show it most: `step`, `steps`, `radius` as in `maps.attack`
    upper    also draw, to see whether the maps go on to show the same, as many images that follow the strongest and as
             many of the weakest of this share of the class where the feature is strongest; None: not
    batch    images per forward pass
    workers  threads that decode ahead; 0: none
    """

    images: int = 5
    size: int = 160
    attacks: bool = False
    step: float | None = None
    steps: int = STEPS
    radius: float | None = None
    upper: float | None = None
    batch: int = 32
    workers: int = 0

    def __post_init__(self) -> None:
        for name, least in (("images", 1), ("size", 16), ("steps", 1), ("batch", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise SpuriosityError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if wrong := [name for name in ("step", "radius") if (v := getattr(self, name)) is not None and not v > 0]:
            raise SpuriosityError(f"{wrong[0]} of the attack is {getattr(self, wrong[0])}, expected more than 0")
        if self.upper is not None and not 0 < self.upper <= 0.5:
            raise SpuriosityError(f"upper is {self.upper:g}, expected a share above 0, up to a half")


def panels(
    analysis: Analysis,
    settings: PanelSettings = PanelSettings(),
    *,
    device: str = "cpu",
    weights: Path | None = None,
    classes: Sequence[int] | None = None,
    progress: Progress = silent,
) -> Panels:
    """Draw a panel for every class and feature that was discovered; write panels/ and panels.json.

    What is drawn already is not drawn again. device, weights: as for `ImageInspector.open`
    classes  codes of those to draw, where not all; the panels of the others stay as they are
    Raises `SpuriosityError` where nothing was discovered, else as `ImageInspector` and `draw` do.
    """
    discovery = analysis.discovery()
    lens = ImageInspector.open(analysis.workspace, analysis.manifest, analysis.cache, device, weights)
    if classes is None:
        return draw(lens, discovery.candidates, analysis.folder, settings, progress, analysis.notice)
    some = [c for c in discovery.candidates if c.label in classes]
    return draw(lens, some, analysis.folder, settings, progress, analysis.notice, keep=discovery.candidates)


def choose(lens: ImageInspector, candidates: Sequence[Candidate], options: PanelSettings) -> list[Panel]:
    """The panels with everything but their pictures: which images, by the cached features of the training rows.

    Rows of a class in the order of their activation, ties by id: the last ones are shown as most, the last first, the
    first ones as least. A class of fewer than twice as many rows shows fewer of either.
    """
    manifest, cache = lens.manifest, lens.cache
    listed = [sorted({c.feature for c in candidates if c.label == k}) for k in range(len(manifest.classes))]
    train = manifest.splits == SPLITS.index("train")
    values = columns(manifest, cache, table(listed), train)
    common = _facts(lens, options)
    chosen = []
    for c in candidates:
        column = values[:, listed[c.label].index(c.feature)] if listed[c.label] else np.empty(0)
        rows = np.flatnonzero(train & (manifest.labels == c.label) & np.isfinite(column))
        if not len(rows):
            raise SpuriosityError(f"{c.class_name} has no usable training row in {cache.path}; discover again")
        activation = column[rows]
        order = np.argsort(activation, kind="stable")
        ends = ends_of(order, options)
        place = place_of(c.label, c.class_name, c.feature)
        shots = []
        for end, j, i in ((end, j, i) for end, places in ends.items() for j, i in enumerate(places)):
            file = f"{place}/{end}-{j}"
            attacked = f"{file}-attack.jpg" if options.attacks and end == "most" else None
            row_id = str(manifest.ids[rows[i]])
            shots.append(Shot(row_id, end, float(activation[i]), f"{file}.jpg", f"{file}-map.jpg", attacked))
        counts, edges = np.histogram(activation, bins=BINS, range=(min(0.0, activation.min()), activation.max() or 1.0))
        panel = Panel(
            c.label, c.class_name, c.feature, c.rank, c.importance, c.share, c.gap, len(rows),
            float(activation.mean()), tuple(map(float, edges)), tuple(map(int, counts)),
            tuple(manifest.classes[k] if isinstance(k, int) else str(k) for k in c.elsewhere), tuple(shots),
            f"{place}/histogram.svg", f"{place}/sheet.jpg", "",
        )  # fmt: skip
        hashes = [cache.content_hash[lens.at[rows[i]]].tobytes().hex() for places in ends.values() for i in places]
        facts = json.dumps([common, asdict(panel), hashes], sort_keys=True)
        chosen.append(replace(panel, identity=hashlib.sha256(facts.encode()).hexdigest()))
    return chosen


def ends_of(order: np.ndarray, options: PanelSettings) -> dict[str, np.ndarray]:
    """{end of a panel: which rows it shows}, of the places of all rows by activation; none is in two of them."""
    n = len(order)
    k = min(options.images, (n + 1) // 2)
    ends = {"most": order[::-1][:k], "least": order[: min(options.images, n - k)]}
    if options.upper is not None:
        rest = order[::-1][k : max(round(options.upper * n), k)]
        following = rest[: min(k, (len(rest) + 1) // 2)]
        ends |= {"following": following, "border": rest[len(following) :][::-1][:k]}
    return ends


def place_of(label: int, class_name: str, feature: int) -> str:
    """The folder of a pair's pictures, below that of the analysis."""
    name = slug(class_name).encode()[:LONGEST_NAME].decode(errors="ignore")
    return f"{FOLDER}/{label:04d}-{name}/{feature:04d}"


def record_of(label: int, class_name: str, feature: int) -> str:
    """The record of a pair's pictures, below the folder of the analysis."""
    return f"{place_of(label, class_name, feature)}/{PANEL}"


def _facts(lens: ImageInspector, options: PanelSettings) -> dict[str, Any]:
    """What all pictures follow from; how they are computed is no part of it."""
    look = {k: v for k, v in asdict(options).items() if k not in ("batch", "workers")}
    if not options.attacks:
        look = {k: v for k, v in look.items() if k not in ("step", "steps", "radius")}
    if options.upper is None:
        look.pop("upper")
    return {"version": LOOK, "identity": lens.cache.header.identity, "layer": lens.mapper.layer, "options": look}


def draw(
    lens: ImageInspector,
    candidates: Sequence[Candidate],
    folder: Path,
    options: PanelSettings,
    progress: Progress = silent,
    notice: Notice = lambda text: None,
    *,
    keep: Sequence[Candidate] = (),
) -> Panels:
    """Draw the panels that are not there yet below `folder`, and write `panels.json`; one process at a time does.

    keep  pairs whose panels stay in `panels.json` as they are there, where they are of the same network and layer
    Raises as `ImageInspector.images` and `.maps` do, and `SpuriosityError` for a class without usable training rows.
    """
    panels = choose(lens, candidates, options)
    with alone(folder / FILE, notice):
        done = [_finished(panel, folder) for panel in panels]
        fresh = {i: panel for i, (panel, old) in enumerate(zip(panels, done, strict=True)) if old is None}
        for i, panel in _drawn(lens, fresh, folder, options, progress):
            done[i] = panel
        header = lens.cache.header
        result = Panels(
            lens.manifest.name, header.backbone, str(header.identity["weights"]), lens.mapper.layer,
            tuple(panel for panel in done if panel is not None),
        )  # fmt: skip
        result = _beside(result, folder, keep)
        result.save(folder)
    return result


def _beside(fresh: Panels, folder: Path, keep: Sequence[Candidate]) -> Panels:
    """Fresh panels together with those of other pairs that `panels.json` has, in the order of `keep`."""
    if not keep or not (folder / FILE).is_file():
        return fresh
    before = ALL.read(folder / FILE)
    if (before.weights, before.layer) != (fresh.weights, fresh.layer):
        return fresh
    found = {(p.label, p.feature): p for p in (*before.panels, *fresh.panels)}
    return replace(fresh, panels=tuple(found[pair] for c in keep if (pair := (c.label, c.feature)) in found))


def _drawn(
    lens: ImageInspector, fresh: Mapping[int, Panel], folder: Path, options: PanelSettings, progress: Progress
) -> Iterator[tuple[int, Panel]]:
    """One pass over the images that panels need, in the order of their first use; panels, as they finish."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    for i, panel in fresh.items():
        (folder / panel.record).unlink(missing_ok=True)
        (folder / panel.sheet).parent.mkdir(parents=True, exist_ok=True)
        rows = np.searchsorted(lens.manifest.ids, [shot.id for shot in panel.shots])
        for j, row in enumerate(rows.tolist()):
            wanted.setdefault(row, []).append((i, j))
    shots = {i: dict(enumerate(panel.shots)) for i, panel in fresh.items()}
    left = {i: len(panel.shots) for i, panel in fresh.items()}
    rows = list(wanted)
    read = lens.images(rows, lens.geometry, options.workers)
    for start in range(0, len(rows), options.batch):
        batch_rows = rows[start : start + options.batch]
        first = [wanted[row][0] for row in batch_rows]
        progress(start, len(rows), fresh[first[0][0]].class_name)
        pixels = np.stack([next(read) for _ in batch_rows])
        activations = np.array([shots[i][j].activation for i, j in first])
        maps = lens.maps(batch_rows, pixels, activations, [fresh[i].feature for i, _ in first])
        pairs = [(b, i, j) for b, row in enumerate(batch_rows) for i, j in wanted[row]]
        for b, i, j in pairs:
            shown = picture(pixels[b], options.size)
            land(folder / shots[i][j].image, shown)
            land(folder / shots[i][j].overlay, overlay(shown, nam(maps[b, fresh[i].feature])))
        for i, j, attacked, after in _attacked(lens.mapper, pixels, pairs, shots, fresh, options):
            shot = shots[i][j] = replace(shots[i][j], attacked=after)
            land(folder / str(shot.attack), picture(attacked, options.size))
        for _, i, _ in pairs:
            left[i] -= 1
            if not left[i]:
                panel = replace(fresh[i], shots=tuple(shots.pop(i).values()))
                _finish(panel, folder)
                yield i, panel
    progress(len(rows), len(rows), "")


def _attacked(
    mapper: Mapper,
    pixels: np.ndarray,
    pairs: Sequence[tuple[int, int, int]],
    shots: Mapping[int, Mapping[int, Shot]],
    fresh: Mapping[int, Panel],
    options: PanelSettings,
) -> Iterator[tuple[int, int, np.ndarray, float]]:
    """(panel, shot, attacked image, activation after) of the shots that are to be attacked, whatever their features."""
    import torch

    todo = [(b, i, j) for b, i, j in pairs if shots[i][j].attack]
    for start in range(0, len(todo), options.batch):
        part = todo[start : start + options.batch]
        done = attack(
            mapper, torch.from_numpy(pixels[[b for b, _, _ in part]]), [fresh[i].feature for _, i, _ in part],
            step=options.step, steps=options.steps, radius=options.radius,
        )  # fmt: skip
        for (_, i, j), image, after in zip(part, done.pixels, done.after, strict=True):
            yield i, j, image, float(after)


def _finish(panel: Panel, folder: Path) -> None:
    """Histogram and sheet of a panel whose pictures are there, and the record that vouches for all."""
    title = f"{panel.class_name}: activations of feature {panel.feature}, {panel.n:,} training images"
    marks = [shot.activation for shot in panel.shots]
    write_text(folder / panel.histogram, histogram(panel.edges, panel.counts, marks, title))
    rows = []
    for end in ("most", "least"):
        of_end = [shot for shot in panel.shots if shot.end == end]
        activations = [f"{shot.activation:#.3g}" for shot in of_end]
        attacked = [f"{shot.attacked:#.3g}" for shot in of_end if shot.attacked is not None]
        kinds = (("", "image", activations), (", maps", "overlay", activations), (", attacked", "attack", attacked))
        for name, kind, captions in kinds:
            files = [getattr(shot, kind) for shot in of_end if getattr(shot, kind)]
            if files:
                rows.append((f"{end} activating{name}", [_picture(folder / file) for file in files], captions))
    head = f"{panel.class_name}   feature {panel.feature}   rank {panel.rank}   importance {panel.importance:.3g}"
    gap = f"gap {100 * panel.gap.value:+.1f} points" if panel.gap else ""
    also = f"also in: {', '.join(panel.elsewhere[:4])}" + " …" * (len(panel.elsewhere) > 4) if panel.elsewhere else ""
    more = "   ".join(filter(None, (f"mean {panel.mean:.3g} over {panel.n:,} images", gap, also)))
    land(folder / panel.sheet, sheet([head, more], rows))
    ONE.write(folder / panel.record, panel)


def _finished(panel: Panel, folder: Path) -> Panel | None:
    """The same panel as an earlier pass drew it; None where there is none, or one of other images or options."""
    earlier = drawn(panel, folder)
    if earlier is None:
        return None
    files = [earlier.histogram, earlier.sheet, *(f for s in earlier.shots for f in (s.image, s.overlay, s.attack) if f)]
    whole = all((folder / f).is_file() and (folder / f).stat().st_size for f in files)  # a power cut leaves empty ones
    return earlier if whole and earlier.identity == panel.identity else None


def _picture(file: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))
