"""Answer of the study `imagenet-spuriosity`: the rankings of Moayeri et al. 2023 on ImageNet, measured and mended.

The first backbone ranks, by the features that the public votes of Salient ImageNet call spurious; they are read from
`discover_spurious_features.csv` in the dataset's folder. Every backbone is measured with its own classifier or, where
it has none for these classes, with the first head of the study, and the second backbone's is tuned. All steps are those
of `embedx spuriosity`, whose folder they fill.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedx.errors import HeadError, StudyError
from embedx.evaluation.model import PRETRAINED, ModelName, pretrained
from embedx.report.text import p_text, signed
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.annotate import annotate
from embedx.spuriosity.gap import Measurement, gap
from embedx.spuriosity.measures.tuned import Tuning
from embedx.spuriosity.measures.tuning_settings import TuningSettings
from embedx.spuriosity.rank import rank
from embedx.spuriosity.tune import tune
from embedx.statistics import Interval
from embedx.studies.outcome import Answer, CellRuns, Outcome, Section

if TYPE_CHECKING:
    import pandas as pd

    from embedx.statistics import Against

VOTES = "discover_spurious_features.csv"
PAPER = "Moayeri et al. 2023 (arXiv 2212.02648)"
GAPS = (0.10, 0.30)
"""Of 89 models at ten images an end, all of them: section 4.1."""
CORRELATION, RATIO, NEGATIVE = 0.69, 3.1, 0.157
"""Between class gaps of two models; variance over classes to variance over models; share of class gaps below 0."""
NARROWED, LEFT, COST = (0.10, 0.20), 0.05, (0.01, 0.03)
"""By tuning on the 100 least spurious images of each class: the gap falls by, ends below; accuracy falls by."""


def answer(outcome: Outcome) -> Answer:
    """How large the gaps are, whether models share them, and what tuning on the least spurious images makes of them."""
    sections: list[Section] = []
    for cell in outcome.cells:
        analysis = Analysis.open(cell.workspace, cell.manifest, _backbones(cell)[0])
        votes = Path(cell.manifest.root or ".") / VOTES
        if not votes.is_file():
            raise StudyError(
                f"{votes} does not exist: put the public votes of Salient ImageNet there "
                "(https://github.com/singlasahil14/salient_imagenet) and give the same command again, which extracts "
                "and fits nothing twice"
            )
        annotate(analysis, file=votes)
        rank(analysis)
        models = [_model(cell, backbone, cell.runs[0].head) for backbone in _backbones(cell)]
        measured = gap(analysis, models)
        sections += [_gaps(measured), *_shared(measured)]
        (tuned,) = tune(analysis, models[1:2] or models, TuningSettings(k=100))
        sections.append(_tuned(tuned.tuning))
    return Answer.of(*sections)


def _backbones(cell: CellRuns) -> list[str]:
    return list(dict.fromkeys(run.backbone for run in cell.runs))


def _model(cell: CellRuns, backbone: str, head: str) -> ModelName:
    """The backbone's own classifier, or the head of the study."""
    try:
        pretrained(cell.manifest, cell.cache(backbone))
    except HeadError:
        return ModelName(backbone, head)
    return ModelName(backbone, PRETRAINED)


def _gaps(measured: Measurement) -> Section:
    rows = [
        {
            "model": g.model, "classes": g.mean.classes, "most spurious, %": _percent(g.mean.high),
            "least spurious, %": _percent(g.mean.low), "gap, points": _points(g.mean.gap),
            "random ranking": f"{signed(g.mean.null[0])} to {signed(g.mean.null[1])}", "p": p_text(g.mean.p),
            "overlaps 10 to 30 points": "yes" if g.mean.gap.low <= GAPS[1] and GAPS[0] <= g.mean.gap.high else "no",
        }
        for g in measured.gaps
    ]  # fmt: skip
    within = sum(row["overlaps 10 to 30 points"] == "yes" for row in rows)
    widest = max(measured.gaps, key=lambda g: g.mean.gap.value)
    text = (
        f"Of {len(rows)} models {within} have a gap whose interval overlaps the published range of 10 to 30 points; "
        f"the largest is that of {widest.model}, {_points(widest.mean.gap)} points (n = {widest.mean.gap.n:,} images)."
    )
    return Section("How much worse are models where the cues of a class are absent?", text,
                   f"Wilson's limits of both ends, combined; p against random orders of the same images. {PAPER}: 89 "
                   "models, all between 10 and 30 points.", tables=(("Gaps", _frame(rows)),))  # fmt: skip


def _shared(measured: Measurement) -> list[Section]:
    across = measured.across
    if across is None:
        return []
    published = (
        ("correlation of class gaps between models", across.mean_correlation, CORRELATION),
        ("variance over classes / over models", across.variance_ratio, RATIO),
        ("share of classes with a gap below 0", across.negative, NEGATIVE),
    )
    rows = [_beside(name, here, theirs) for name, here, theirs in published if here is not None]
    told = ", ".join(f"{row['figure']} {row['here']} (published {row['published']})" for row in rows)
    return [Section("Do models fail in the same classes?", f"Over {len(measured.gaps)} models: {told}.",
                    "Each figure beside its median and 95 % range when the images of each class are put in random "
                    f"order, one for all models. {PAPER}: 89 models, no intervals, so that none can overlap.",
                    tables=(("What models share", _frame(rows)),))]  # fmt: skip


def _beside(name: str, here: Against, theirs: float) -> dict[str, Any]:
    return {
        "figure": name, "here": f"{here.value:.2f}", "published": f"{theirs:g}",
        "difference": f"{here.value - theirs:+.2f}".replace("-", "−"),
        "random ranking": f"{here.null:.2f} ({here.low:.2f} to {here.high:.2f})", "p": p_text(here.p),
    }  # fmt: skip


def _tuned(tuning: Tuning) -> Section:
    lowest = tuning.results[1]
    rows = [
        {
            "tuned on": result.rows, "images": result.tuned_on, "gap, points": _points(result.gap.value),
            "change": "–" if result.gap.change is None else _points(result.gap.change),
            "average, %": _percent(result.average.value),
            "its change, points": "–" if result.average.change is None else _points(result.average.change),
        }
        for result in tuning.results
    ]  # fmt: skip
    assert lowest.gap.change is not None  # only the untouched head has none
    assert lowest.average.change is not None
    text = (
        f"Tuning {tuning.model} on the least spurious images changes the mean gap of {len(tuning.ranked)} classes by "
        f"{_points(lowest.gap.change)} points, to {_points(lowest.gap.value)}, and the average by "
        f"{_points(lowest.average.change)}. Published: the gap falls by {100 * NARROWED[0]:g} to {100 * NARROWED[1]:g} "
        f"points, to less than {100 * LEFT:g}, accuracy by {100 * COST[0]:g} to {100 * COST[1]:g}; the interval of the "
        f"gap here {'reaches' if lowest.gap.value.low < LEFT else 'does not reach'} that."
    )
    return Section("Does tuning on the least spurious images close the gap?", text,
                   f"Stopped on {tuning.stop}, reported on test, changes paired by image. {PAPER}, section 4.3.",
                   tables=(("Tuned heads", _frame(rows)),))  # fmt: skip


def _percent(x: Interval) -> str:
    return f"{100 * x.value:.1f} ({100 * x.low:.1f}–{100 * x.high:.1f})"


def _points(x: Interval) -> str:
    return f"{signed(x.value)} ({signed(x.low)} to {signed(x.high)})"


def _frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows)
