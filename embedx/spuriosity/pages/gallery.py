"""The pages of a gallery, made of what an analysis found: of all classes, of each class, of all models together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from embedx.errors import SpuriosityError
from embedx.spuriosity.annotations import agreement
from embedx.spuriosity.measures.gaps import Gaps
from embedx.spuriosity.pages import charts
from embedx.spuriosity.pages.page import address, page
from embedx.spuriosity.records.findings import Findings
from embedx.spuriosity.records.flags import Flag, counts
from embedx.workspace import slug

IMAGES = "images"
LONGEST_NAME = 100
"""Bytes of a class name in a file name; file systems take 255."""
FEW = 5
"""Images of the review shown on the page of a class."""


@dataclass(frozen=True, eq=False)
class Site:
    """What all pages know. `images` maps files of the analysis to their places in the site, as they are asked for."""

    source: Path
    findings: Findings
    images: dict[str, str] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        """The dataset that was analysed."""
        return self.findings.discovery.dataset

    @property
    def backbone(self) -> str:
        """The backbone whose features were discovered."""
        return self.findings.discovery.backbone

    @property
    def flags(self) -> tuple[Flag, ...]:
        """The images to look at again."""
        return self.findings.flags

    @property
    def missing(self) -> Mapping[str, str]:
        """{what has not been made: the command that makes it}."""
        return self.findings.missing

    @property
    def has_panels(self) -> bool:
        """Whether features have pictures."""
        return bool(self.findings.panels)

    @cached_property
    def names(self) -> list[str]:
        """File name of every class, unique by its code."""
        return [f"{c:04d}-{_short(slug(name))}.html" for c, name in enumerate(self.findings.discovery.classes)]

    def href(self, label: int, up: str = "") -> str:
        """Address of the page of a class; up: the way from the page that links to the folder of classes."""
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


def review_page(site: Site) -> str:
    """The queue of the review."""
    flags = [_placed(site, f) for f in site.flags]
    return page(
        "review.html.j2", title=site.dataset, backbone=site.backbone, flags=flags, counts=counts(flags),
        check=site.findings.check, link=site,
    )  # fmt: skip


def _placed(site: Site, flag: Flag) -> Flag:
    """With files as they lie in the site; the template makes addresses of them."""
    for file in filter(None, (flag.image, flag.crop)):
        site.image(file)
    return replace(flag, image=flag.image and site.images[flag.image], crop=flag.crop and site.images[flag.crop])


@dataclass(frozen=True, eq=False)
class ByClass:
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
    def of(cls, site: Site) -> ByClass:
        """What a site shows, looked up once for all of its pages."""
        candidates, gaps, collisions, drawn, flags = {}, {}, {}, {}, {}
        for c in site.findings.discovery.candidates:
            candidates.setdefault(c.label, []).append(c)
        measured = site.findings.measured
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


def index_page(site: Site, by: ByClass) -> str:
    """All classes, a row each, to be searched and sorted."""
    findings, rows = site.findings, []
    ids = {a.class_index: a.class_id for a in findings.annotations.values()}
    for label, name in enumerate(findings.discovery.classes):
        features, annotated = [], 0
        for c in by.candidates.get(label, ()):
            panel, note = findings.panels.get((label, c.feature)), findings.annotations.get((label, c.feature))
            annotated += note is not None
            most = next((s.image for s in panel.shots if s.end == "most"), None) if panel else None
            features.append({
                "feature": c.feature, "role": note.label if note else "", "cue": note.cue if note else "",
                "image": most and site.image(most),
            })  # fmt: skip
        of_model = [c for name, c in by.collisions.get(label, ()) if by.model and name == by.model.model]
        first = next((c for c in of_model if c.taken > c.low), None)
        rows.append({
            "label": label, "name": name, "id": ids.get(label, ""), "href": site.href(label, "class/"),
            "features": features, "said": annotated, "spurious": sum(f["role"] == "spurious" for f in features),
            "gap": by.gap.get(label), "taken": first.other_name if first else "",
        })  # fmt: skip
    return page("index.html.j2", site=site, rows=rows, model=by.model)


def class_page(site: Site, by: ByClass, label: int) -> str:
    """One class: its gap and collision, and its features with pictures and votes."""
    findings, discovery, up = site.findings, site.findings.discovery, "../"
    names, last = discovery.classes, len(discovery.classes) - 1

    def link(other: int, feature: int | None = None) -> dict[str, Any]:
        role = "" if feature is None else findings.label((other, feature))
        return {"href": site.href(other), "name": names[other], "role": role}

    features = []
    for c in by.candidates.get(label, ()):
        panel, note = findings.panels.get((label, c.feature)), findings.annotations.get((label, c.feature))
        ends: dict[str, list[dict[str, Any]]] = {}
        for s in (s for s in (panel.shots if panel else ()) if s.end in ("most", "least")):
            ends.setdefault(s.end, []).append({
                "image": site.image(s.image, up), "overlay": site.image(s.overlay, up),
                "attack": s.attack and site.image(s.attack, up), "activation": s.activation, "attacked": s.attacked,
            })  # fmt: skip
        features.append({
            "c": c, "panel": panel, "said": note, "role": note.label if note else "", "ends": list(ends.items()),
            "histogram": panel and site.image(panel.histogram, up),
            "elsewhere": [link(e, c.feature) for e in c.elsewhere],
        })  # fmt: skip
    flags = by.flags.get(label, ())
    ranking = findings.measured.ranking
    return page(
        "class.html.j2", site=site, label=label, name=names[label], size=discovery.sizes[label],
        grouping=discovery.grouping, fallback=label in discovery.fallbacks,
        class_id=next((f["said"].class_id for f in features if f["said"]), ""),
        before=link(label - 1) if label else None, after=link(label + 1) if label < last else None,
        gaps=by.gaps.get(label, ()), ranker=ranking.backbone if ranking else "",
        cues=list(dict.fromkeys(ranking.cues.get(label, ()))) if ranking else [],
        collisions=[(m, _Linked(c, site.href(c.other))) for m, c in by.collisions.get(label, ())],
        drawn_here=[link(c) for c in by.drawn_here.get(label, ())], features=features, flags=flags,
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


def overall_page(site: Site) -> str:
    """The figures over all classes: models, gap against k, accuracy by spuriosity, tuning before and after."""
    from markupsafe import Markup

    from embedx.report.drawing import inline

    def drawn(svg: str) -> Markup:
        return Markup(inline(svg))  # noqa: S704  matplotlib escapes the texts

    findings, models = site.findings, site.findings.measured.models
    across = findings.measured.across
    entries = list(findings.annotations.values())
    words = ("spurious", "core", "unsure") if entries else ()
    labels = {label: sum(a.label == label for a in entries) for label in words}
    kappa = agreement(entries, binary=True)
    curves = {"depths": charts.depths, "positions": charts.positions}
    more = len(models) - charts.SHOWN
    tuned = [
        vars(t) | {
            "name": t.model, "grouped": t.results[0].worst_group is not None,
            "front": drawn(charts.front(t)), "positions": drawn(charts.tuned_positions(t)),
            "ranked_rows": charts.ranked_rows(t),
        }
        for t in findings.tuning
    ]  # fmt: skip
    among = [
        (f"{g.model}: {name}", standing)
        for g in models
        if g.peers and g.peers.mean
        for name, standing in [("mean", g.peers.mean), *zip((c.name for c in g.classes), g.peers.classes, strict=True)]
        if standing
    ]
    return page(
        "overall.html.j2", site=site, discovery=findings.discovery, labels=labels, among=among,
        kappa=kappa if kappa.pairs else None, models=models,
        robust={r.model: r.effective for r in across.robustness} if across and across.line else {},
        shared=across and across.mean_correlation,
        charts={name: drawn(f(models)) if models else "" for name, f in curves.items()}, tuned=tuned,
        left_out=f" The first {charts.SHOWN} of {len(models)} models." if more > 0 else "",
    )  # fmt: skip
