"""The whole folder of a spuriosity analysis, made up, for the tests of its gallery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from embedx.evaluation.records import Notice
from embedx.probes import Labels, Supervision
from embedx.spuriosity import annotations
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.features.activations import Progress, silent
from embedx.spuriosity.measures.across_models import across
from embedx.spuriosity.measures.changes import Figure
from embedx.spuriosity.measures.collisions import Collision, Pull
from embedx.spuriosity.measures.evidence import Evidence
from embedx.spuriosity.measures.gaps import Gaps, gaps
from embedx.spuriosity.measures.predictions import Predictions
from embedx.spuriosity.measures.tuned import Point, Result, Rival, Tuning
from embedx.spuriosity.measures.tuning_settings import TuningSettings
from embedx.spuriosity.records import flags as flags_file
from embedx.spuriosity.records import tunings as _tunings
from embedx.spuriosity.records.discovery import Candidate, Discovery
from embedx.spuriosity.records.flags import NEGATIVE, SURE, Flag
from embedx.spuriosity.records.gaps import save as save_gaps
from embedx.spuriosity.records.panel import ONE, PANEL, Panel, Panels, Shot
from embedx.spuriosity.records.ranking import Ranking
from embedx.spuriosity.site import site
from embedx.statistics import Interval
from embedx.workspace import Workspace

WEIGHTS = "0123456789abcdef" * 4
SHARED = 7  # a feature of every class
X = Interval(0.1, -0.05, 0.25, 50)


def picture(folder: Path, file: str) -> str:
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    if file.endswith(".svg"):
        (folder / file).write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    else:
        Image.new("RGB", (8, 8), "#336699").save(folder / file)
    return file


def candidate(names: Sequence[str], label: int, feature: int, rank: int) -> Candidate:
    others = tuple(o for o in range(len(names)) if o != label)[:3] if feature == SHARED else ()
    gap = None if rank == 2 else X
    return Candidate(label, names[label], feature, rank, 1 / rank, 0.2 / rank, gap, 25, others)


def numbered(label: int, class_name: str, feature: int) -> str:
    """A place for pictures, whatever the class is called."""
    return f"panels/{label:04d}/{feature:04d}"


def panel(folder: Path, c: Candidate, drawn: bool, place_of: Callable[[int, str, int], str] = numbered) -> Panel:
    place = place_of(c.label, c.class_name, c.feature) if drawn else "panels/any"
    file = (lambda name: picture(folder, f"{place}/{name}")) if drawn else lambda name: f"{place}/{name}"
    ends = [("most", 0), ("most", 1), ("least", 0)]
    shots = tuple(
        Shot(f"row{j}", end, 2.0 - j, file(f"{end}-{j}.jpg"), file(f"{end}-{j}-map.jpg"),
             file(f"{end}-{j}-attack.jpg") if end == "most" else None, 9.0 if end == "most" else None)
        for end, j in ends
    )  # fmt: skip
    (folder / place).mkdir(parents=True, exist_ok=True)
    record = Panel(
        c.label, c.class_name, c.feature, c.rank, c.importance, c.share, c.gap, 40, 1.0, (0.0, 1.0, 2.0), (30, 10), (),
        shots, file("histogram.svg"), f"{place}/sheet.jpg", "",
    )  # fmt: skip
    (folder / place / PANEL).write_text(ONE.text(record))
    return record


def annotated(names: Sequence[str], c: Candidate, note: str) -> Annotation:
    common = ("made", "ranker", WEIGHTS, c.label, names[c.label], c.feature)
    if c.rank == 2:
        mask = {"share": 0.2, "frame": [0.8], "masked": 1}
        return Annotation(*common, "core", "auto:mask", evidence={"mask": mask}, class_id=f"n{c.label:08d}")
    votes = [annotations.Vote(note.replace("\x00", " ") or "one", "background", 5, note)]
    votes += [annotations.Vote(f"voter-{i}", a, None, note) for i, a in enumerate(("background", "main_object"))]
    base = Annotation(*common, "spurious", "local", kind="background", cue=note, class_id=f"n{c.label:08d}")
    return base.voted(votes)


def measured(names: Sequence[str], each: int = 20, models: int = 2) -> tuple[Ranking, list[Predictions]]:
    """Every class but the last is ranked; the first has a negative gap."""
    k = len(names)
    y, n = np.repeat(np.arange(k), each), k * each
    ids = np.array([f"{i:07d}" for i in range(n)], dtype=object)
    scores = np.where(y == k - 1, np.nan, np.arange(n, dtype=float))
    ranking = Ranking("made", "ranker", WEIGHTS, ids, y, np.full(n, 2), scores, "train",
                      {0: ("water",)}, {}, tuple(names), {0: (SHARED,)})  # fmt: skip
    found, place = [], np.arange(n) % each / each
    for m in range(models):
        right = np.random.default_rng(m).random(n) < np.where(y == 0, 1 - place, 0.4 + 0.6 * place)
        found.append(
            Predictions("made", f"model{m}", "plain", "test", tuple(names), ids, y, np.where(right, y, (y + 1) % k))
        )
    return ranking, found


def tuned(names: Sequence[str], detail: Gaps) -> Tuning:
    def result(rows: str, gap: float, front: tuple[Point, ...] = ()) -> Result:
        change = None if rows == "untouched" else X
        figure = Figure(Interval(gap, gap - 0.1, gap + 0.1, 80), change, (gap,))
        return Result(
            rows, 0 if rows == "untouched" else 60, 1, 1, ({},), (gap,), figure, figure, figure, names[0], None, figure,
            f"{names[0]}/{names[1]}", tuple(np.linspace(0.4, 0.9, 20).tolist()), detail, front,
        )  # fmt: skip

    front = tuple(Point({"C": c}, t, 0.1, 0.8, 0.3 - c, 0.8 - c / 9) for t in (0, 1) for c in (0.1, 0.2))
    rival = Rival("dfr", (Supervision(Labels.OTHER, source=names[0]),), X, names[1], X, Figure(X, X, (0.1,)))
    figure = Figure(X, X, (0.1,))
    said = Evidence(
        figure, figure, figure, figure, figure, names[0], figure, names[1], None, figure, (), ((0.5,), (0.6,)),
        (f"the worst class, {names[0]}, is got right less often",),
    )  # fmt: skip
    return Tuning(
        "made", "model0", "plain", "ranker", TuningSettings(), "validation",
        {"train": 9, "stop": 9, "test": 9}, tuple(names),
        (result("untouched", 0.4), result("lowest", 0.04, front)), {}, (rival,),
        evidence=said, kept=True,
    )  # fmt: skip


def analysis(
    folder: Path, names: Sequence[str], note: str = "a note", drawn: bool = True,
    place_of: Callable[[int, str, int], str] = numbered,
) -> Path:  # fmt: skip
    """A whole folder of an analysis, all parts of it; place_of: where pictures lie."""
    found = tuple(
        candidate(names, c, f, r) for c in range(len(names)) for r, f in enumerate((SHARED, 100 + c, 2000 + c), 1)
    )
    Discovery(
        dataset="made", backbone="ranker", weights=WEIGHTS, recipe="convex", grouping="label", classes=tuple(names),
        sizes=(40,) * len(names), candidates=found, stability={"seeds": {"paper": 0.5}},
    ).save(folder)  # fmt: skip
    Panels("made", "ranker", WEIGHTS, "layer4", tuple(panel(folder, c, drawn, place_of) for c in found[:-1])).save(
        folder
    )
    if not drawn:
        for name in ("most-0", "most-1", "least-0"):
            for kind in ("", "-map", "-attack"):
                picture(folder, f"panels/any/{name}{kind}.jpg")
        picture(folder, "panels/any/histogram.svg")
    annotations.write(folder / annotations.FILE, [annotated(names, c, note) for c in found if c.rank < 3])
    ranking, answered = measured(names)
    judged = [gaps(ranking, a) for a in answered]
    gap = judged[0].classes[0].gap
    collision = Collision(0, names[0], 1, names[1], gap, 0.01, 3, 0, 4, Pull(SHARED, 2.0, -0.5))
    save_gaps(folder, ranking, judged, across(ranking, answered), [[collision], []])
    _tunings.add(folder, ranking, [tuned(names, judged[0])], print)
    flags = [
        Flag(i, reason, note, "train", 0, names[0], 0.001, 1, names[1], 0.9, names[0], 0.1, gap=-0.3, gap_low=-0.5,
             gap_high=-0.1, gap_n=8, holm=0.01, other=1, other_name=names[1], feature=SHARED, towards=2.0, own=-0.5,
             core_predicted=names[0], core_probability=0.7, core_activation=0.3,
             image=picture(folder, f"review/{i:05d}{(i - 1) * '#%41'}.jpg"),
             crop=picture(folder, f"review/{i:05d}-core.jpg"))
        for i, reason in enumerate((NEGATIVE, SURE), 1)
    ]  # fmt: skip
    flags_file.save(folder, [*flags, replace(flags[-1], place=3, image="", crop="")])
    return folder


def build(
    folder: Path, dataset: str = "made", backbone: str = "ranker", notice: Notice = print, progress: Progress = silent
) -> Path:
    """The site of an analysis of which there is the folder alone."""
    return site(Analysis(Workspace(folder / "cache"), dataset, backbone, folder, notice), progress=progress)
