"""The page of a report: everything but our own SVG, style and script is escaped, and it runs no script but its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedx.errors import EmbedxError
from embedx.evaluation.departures import departure
from embedx.evaluation.figures import percent
from embedx.evaluation.runs import Run, cautions, independent
from embedx.html import breakable, environment, script_hash
from embedx.report.comparison import Comparison
from embedx.report.drawing import inline
from embedx.report.facts import common, details
from embedx.report.inferred import HEADINGS as INFERRED
from embedx.report.inferred import rows as inferred_rows
from embedx.report.published import KINDS, Published, pretraining, same_test_set
from embedx.report.scale import in_words
from embedx.report.text import count, mean_interval_n, signed
from embedx.report.verdicts import limit_text

HERE = Path(__file__).parent


def page(comparison: Comparison, plots: Mapping[str, str]) -> str:
    """The page as text; `plots` are SVG texts by name, and "differences" and "against_size" may be missing."""
    from markupsafe import Markup

    templates, shared, runs = environment(HERE), common(comparison.runs), comparison.runs
    templates.filters |= {
        "percent": percent, "sha256": script_hash, "breakable": breakable, "count": count, "in_words": in_words,
        "mean_interval_n": mean_interval_n, "signed": signed, "limit_text": limit_text,
        "details": lambda result: details(result, shared).items(),
    }  # fmt: skip
    style, script = (Markup((HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))  # noqa: S704
    return templates.get_template("page.html.j2").render(
        comparison=comparison,
        dataset=comparison.dataset,
        runs=runs,
        rows=comparison.rows,
        backbones=comparison.backbones,
        heads=comparison.heads,
        departures={head: told for head in comparison.heads if (told := _departure(head))},
        supervisions=list(dict.fromkeys(result.supervision for result in comparison.rows)),
        seeds=comparison.seeds,
        counts={split: count([run.rows[split] for run in runs]) for split in ("train", "val", "test")},
        attributes=list(dict.fromkeys(name for run in runs for name in run.attributes)),
        drawn=independent(runs),
        same_test=same_test_set(comparison.dataset, [group.n for group in runs[0].metrics.groups]),
        pretraining={source.name: source for b in comparison.backbones if (source := pretraining(b))},
        shared=shared,
        inferred={"headings": INFERRED, "rows": inferred_rows(comparison.rows)},
        plots={name: inline(svg) for name, svg in plots.items()},
        maps={backbone: inline(svg) for backbone, svg in comparison.maps.items()},
        style=style,
        script=script,
        **_warnings(runs),
        **_published(comparison.published),
    )


def _departure(head: str) -> str:
    """How a head of the comparison differs from what its authors compute, in words; empty where it does not."""
    try:
        told = departure(head)
    except EmbedxError:  # a head that is no longer there
        return ""
    return str(told) if told and told.words else ""


def _warnings(runs: Sequence[Run]) -> dict[str, Any]:
    """What a reader has to know before any figure."""
    return {
        "unconverged": sum(not run.converged for run in runs),
        "left_out": {run.backbone: sum(run.left_out.values()) for run in runs if sum(run.left_out.values())},
        "shared_images": {s: n for run in runs for s, n in run.shared_images.items() if n},
        "shared_subjects": {s: (n, run.cluster) for run in runs for s, n in run.shared_subjects.items() if n},
        "dropped": {s: n for run in runs for s, n in run.dropped.items() if n},
        "cautions": cautions(runs),
        "empty": list(dict.fromkeys(group.name for run in runs for group in run.metrics.groups if not group.n)),
    }


def _published(results: Sequence[Published]) -> dict[str, Any]:
    """Published results by what was trained, each with the number of its source, and whether all were traced."""
    sources = list(dict.fromkeys(result.source for result in results))
    by_kind = {
        title: [(result, sources.index(result.source) + 1) for result in results if result.kind == kind]
        for kind, title in KINDS.items()
    }
    return {
        "published": {title: rows for title, rows in by_kind.items() if rows},
        "sources": sources,
        "traced": all(result.traced for result in results),
    }
