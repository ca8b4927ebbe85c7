"""A gallery of an analysis: plain files that open from disk, made of what its folder holds.

    site/index.html            all classes, to be searched and sorted: features, spurious count, gap
    site/class/NNNN-NAME.html  a class: gaps, collision, features with pictures and votes, other classes of them
    site/overall.html          models, gap against k, accuracy by spuriosity, tuning before and after
    site/review.html           the queue of `embedx spuriosity review`
    site/images/               the pictures, so that the folder can be moved or sent as it is
    site/site.json             what it was made of: `Gallery`

Only the discovery has to be there; what else is missing is named with the command that makes it. Links are relative and
nothing is fetched. The folder is made aside and put in place when it is whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from embedx.documents import Kind
from embedx.errors import SpuriosityError
from embedx.files import landing_folder, locked
from embedx.spuriosity.annotations import agreement
from embedx.spuriosity.features.activations import Progress, silent
from embedx.spuriosity.measures.gaps import Gaps
from embedx.spuriosity.pages import charts as _charts
from embedx.spuriosity.pages.page import address, page
from embedx.spuriosity.records.findings import Analysis, Notice
from embedx.spuriosity.review import FILE as REVIEW
from embedx.spuriosity.review import Flag, counts
from embedx.spuriosity.review import load as load_review
from embedx.workspace import slug

FOLDER, IMAGES, FACTS = "site", "images", "site.json"
LONGEST_NAME = 100
"""Bytes of a class name in a file name; file systems take 255."""
FEW = 5
"""Images of the review shown on the page of a class."""


@dataclass(frozen=True)
class Gallery:
    """What a gallery was made of; the file marks its folder as ours, which may be replaced.

    classes  how many
    missing  {what was not there: the command that makes it}
    """

    dataset: str
    backbone: str
    classes: int
    missing: Mapping[str, str]


KIND = Kind(Gallery, f"{FOLDER}/{FACTS}", "embedx spuriosity site", SpuriosityError, "embedx-site", 1)


@dataclass(frozen=True, eq=False)
class Site:
    """What all pages know. `images` maps files of the analysis to their places in the site, as they are asked for."""

    source: Path
    analysis: Analysis
    flags: tuple[Flag, ...]
    missing: Mapping[str, str]
    images: dict[str, str] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        return self.analysis.discovery.dataset

    @property
    def backbone(self) -> str:
        return self.analysis.discovery.backbone

    @property
    def has_panels(self) -> bool:
        return bool(self.analysis.panels)

    @cached_property
    def names(self) -> list[str]:
        """File name of every class, unique by its code."""
        return [f"{c:04d}-{_short(slug(name))}.html" for c, name in enumerate(self.analysis.discovery.classes)]

    def href(self, label: int, up: str = "") -> str:
        return up + address(self.names[label])

    def image(self, file: str, up: str = "") -> str:
        """Address of a picture of the analysis, which goes with the site.

        Raises `SpuriosityError` for a path that leads out of the folder, as nothing that we wrote does.
        """
        if file not in self.images:
            parts = PurePosixPath(file).parts
            if not parts or PurePosixPath(file).is_absolute() or ".." in parts or "\\" in file:
                raise SpuriosityError(f"{file!r} is no picture below {self.source}; make panels and review again")
            self.images[file] = f"{IMAGES}/{file}"
        return up + address(self.images[file])


def _short(name: str) -> str:
    return name.encode()[:LONGEST_NAME].decode(errors="ignore")


def build(folder: Path, dataset: str, backbone: str, notice: Notice, progress: Progress = silent) -> Path:
    """Make `folder`/site out of what is in `folder`; returns the index.

    Raises `SpuriosityError` for what is damaged, of another backbone, or in the way; `ProvenanceError` for what is of
    another network.
    """
    analysis = Analysis.load(folder, notice)
    found = analysis.discovery
    if (slug(found.dataset), slug(found.backbone)) != (slug(dataset), slug(backbone)):
        raise SpuriosityError(
            f"{folder} holds a discovery on {found.dataset} with {found.backbone}, asked for was {dataset} with "
            f"{backbone}; name those, or another folder with -o"
        )
    there = (folder / REVIEW).is_file()
    missing = dict(analysis.missing) | ({} if there else {REVIEW: "embedx spuriosity review"})
    site = Site(folder, analysis, tuple(load_review(folder)) if there else (), missing)
    final = folder / FOLDER
    if final.exists() and not _ours(final):
        raise SpuriosityError(f"{final} holds other files than a gallery; move them away, or choose another -o")
    with locked(final), landing_folder(final) as aside:
        (aside / "class").mkdir()
        _write(site, aside, progress)
    return final / "index.html"


def _ours(folder: Path) -> bool:
    if folder.is_dir() and not any(folder.iterdir()):
        return True
    try:
        return bool(KIND.read(folder / FACTS))
    except (OSError, SpuriosityError):
        return False


def _write(site: Site, folder: Path, progress: Progress) -> None:
    """All pages, and then the pictures that they show."""
    classes = site.analysis.discovery.classes
    found = _Found.of(site)
    try:
        _put(folder / "index.html", _index(site, found))
        _put(folder / "overall.html", _overall(site))
        for label, name in enumerate(classes):
            progress(label, len(classes), name)
            _put(folder / "class" / site.names[label], _class(site, found, label))
        progress(len(classes), len(classes), "")
        if site.flags:
            flags = [_placed(site, f) for f in site.flags]
            _put(folder / "review.html", page(
                "review.html.j2", title=site.dataset, backbone=site.backbone, flags=flags, counts=counts(flags),
                link=site,
            ))  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise SpuriosityError(f"{site.source} holds a file of another shape ({error}); make it again") from error
    for parent in {(folder / place).parent for place in site.images.values()}:
        parent.mkdir(parents=True, exist_ok=True)
    for file, place in site.images.items():
        _bring(site.source / file, folder / place)
    _put(folder / FACTS, KIND.text(Gallery(site.dataset, site.backbone, len(classes), site.missing)))


def _put(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="")


def _bring(source: Path, place: Path) -> None:
    """The picture itself: the same file under a second name where the disk can, else a copy."""
    try:
        if source.is_symlink():  # the site is to hold the picture, wherever it goes
            shutil.copyfile(source, place)
        else:
            os.link(source, place)
    except FileNotFoundError as error:
        raise SpuriosityError(
            f"{source} is gone; draw it again with `embedx spuriosity panels` or `embedx spuriosity review`"
        ) from error
    except OSError:
        shutil.copyfile(source, place)


def _placed(site: Site, flag: Flag) -> Flag:
    """With files as they lie in the site; the template makes addresses of them."""
    for file in filter(None, (flag.image, flag.crop)):
        site.image(file)
    return replace(flag, image=flag.image and site.images[flag.image], crop=flag.crop and site.images[flag.crop])


@dataclass(frozen=True, eq=False)
class _Found:
    """What pages look up, by class: candidates, gaps and collisions, classes whose images are taken for it, flags.

    model  whose gaps stand in the table: the first on the ranking backbone, else the first; `gap` are its
    """

    candidates: Mapping[int, Sequence[Any]]
    model: Gaps | None
    gap: Mapping[int, Any]
    gaps: Mapping[int, Sequence[tuple[Gaps, Any]]]
    collisions: Mapping[int, Sequence[tuple[str, Any]]]
    drawn_here: Mapping[int, Sequence[int]]
    flags: Mapping[int, Sequence[Flag]]

    @classmethod
    def of(cls, site: Site) -> _Found:
        candidates, gaps, collisions, drawn, flags = {}, {}, {}, {}, {}
        for c in site.analysis.discovery.candidates:
            candidates.setdefault(c.label, []).append(c)
        measured = site.analysis.measured
        for g, pulls in zip(measured.models, measured.collisions, strict=True):
            for c in g.classes:
                gaps.setdefault(c.label, []).append((g, c))
            for c in pulls:
                collisions.setdefault(c.label, []).append((g.model, c))
                if c.taken > c.low:
                    drawn.setdefault(c.other, {})[c.label] = None
        for f in site.flags:
            flags.setdefault(f.label, []).append(f)
        own = [g for g in measured.models if g.backbone == site.backbone]
        model = next(iter([*own, *measured.models]), None)
        gap = {c.label: c for c in model.classes} if model else {}
        return cls(candidates, model, gap, gaps, collisions, {c: list(of) for c, of in drawn.items()}, flags)


def _index(site: Site, found: _Found) -> str:
    analysis, rows = site.analysis, []
    ids = {a.class_index: a.class_id for a in analysis.annotations.values()}
    for label, name in enumerate(analysis.discovery.classes):
        features, said = [], 0
        for c in found.candidates.get(label, ()):
            panel, note = analysis.panels.get((label, c.feature)), analysis.annotations.get((label, c.feature))
            said += note is not None
            most = next((s.image for s in panel.shots if s.end == "most"), None) if panel else None
            features.append({
                "feature": c.feature, "role": note.label if note else "", "cue": note.cue if note else "",
                "image": most and site.image(most),
            })  # fmt: skip
        of_model = [c for name, c in found.collisions.get(label, ()) if found.model and name == found.model.model]
        first = next((c for c in of_model if c.taken > c.low), None)
        rows.append({
            "label": label, "name": name, "id": ids.get(label, ""), "href": site.href(label, "class/"),
            "features": features, "said": said, "spurious": sum(f["role"] == "spurious" for f in features),
            "gap": found.gap.get(label), "taken": first.other_name if first else "",
        })  # fmt: skip
    return page("index.html.j2", site=site, rows=rows, model=found.model)


def _class(site: Site, found: _Found, label: int) -> str:
    analysis, discovery, up = site.analysis, site.analysis.discovery, "../"
    names, last = discovery.classes, len(discovery.classes) - 1

    def link(other: int, feature: int | None = None) -> dict[str, Any]:
        role = "" if feature is None else analysis.label((other, feature))
        return {"href": site.href(other), "name": names[other], "role": role}

    features = []
    for c in found.candidates.get(label, ()):
        panel, said = analysis.panels.get((label, c.feature)), analysis.annotations.get((label, c.feature))
        ends: dict[str, list[dict[str, Any]]] = {}
        for s in panel.shots if panel else ():
            ends.setdefault(s.end, []).append({
                "image": site.image(s.image, up), "overlay": site.image(s.overlay, up),
                "attack": s.attack and site.image(s.attack, up), "activation": s.activation, "attacked": s.attacked,
            })  # fmt: skip
        features.append({
            "c": c, "panel": panel, "said": said, "role": said.label if said else "", "ends": list(ends.items()),
            "histogram": panel and site.image(panel.histogram, up),
            "elsewhere": [link(e, c.feature) for e in c.elsewhere],
        })  # fmt: skip
    flags = found.flags.get(label, ())
    ranking = analysis.measured.ranking
    return page(
        "class.html.j2", site=site, label=label, name=names[label], size=discovery.sizes[label],
        grouping=discovery.grouping, fallback=label in discovery.fallbacks,
        class_id=next((f["said"].class_id for f in features if f["said"]), ""),
        before=link(label - 1) if label else None, after=link(label + 1) if label < last else None,
        gaps=found.gaps.get(label, ()), ranker=ranking.backbone if ranking else "",
        cues=list(dict.fromkeys(ranking.cues.get(label, ()))) if ranking else [],
        collisions=[(m, _Linked(c, site.href(c.other))) for m, c in found.collisions.get(label, ())],
        drawn_here=[link(c) for c in found.drawn_here.get(label, ())], features=features, flags=flags,
        flags_shown=[
            {"image": site.image(f.image, up), "id": f.id, "predicted_name": f.predicted_name,
             "probability": f.probability}
            for f in flags if f.image
        ][:FEW],
    )  # fmt: skip


class _Linked:
    """A collision with the address of the other class."""

    def __init__(self, collision: Any, href: str) -> None:
        self.href = href
        self._collision = collision

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collision, name)


def _overall(site: Site) -> str:
    from markupsafe import Markup

    from embedx.report.drawing import inline

    def drawn(svg: str) -> Markup:
        return Markup(inline(svg))  # noqa: S704  matplotlib escapes the texts

    analysis, models = site.analysis, site.analysis.measured.models
    across = analysis.measured.across
    said = list(analysis.annotations.values())
    labels = {label: sum(a.label == label for a in said) for label in ("spurious", "core", "unsure")} if said else {}
    kappa = agreement(said, binary=True)
    curves = {"depths": _charts.depths, "positions": _charts.positions}
    more = len(models) - _charts.SHOWN
    tuned = [
        vars(t) | {
            "name": t.model, "grouped": t.results[0].worst_group is not None,
            "front": drawn(_charts.front(t)), "positions": drawn(_charts.tuned_positions(t)),
            "ranked_rows": _charts.ranked_rows(t),
        }
        for t in analysis.tuning
    ]  # fmt: skip
    return page(
        "overall.html.j2", site=site, discovery=analysis.discovery, labels=labels,
        kappa=kappa if kappa.pairs else None, models=models,
        robust={r.model: r.effective for r in across.robustness} if across and across.line else {},
        shared=across and across.mean_correlation,
        charts={name: drawn(f(models)) if models else "" for name, f in curves.items()}, tuned=tuned,
        left_out=f" The first {_charts.SHOWN} of {len(models)} models." if more > 0 else "",
    )  # fmt: skip
