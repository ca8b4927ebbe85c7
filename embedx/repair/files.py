"""What the pages of both kinds of repair share: their style, facts and numbers, and how their files are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from embedx.evaluation.model import Model
from embedx.evaluation.saved import write_model
from embedx.files import write_text
from embedx.repair.groups.records import GroupRepairRecord
from embedx.repair.records import RepairRecord
from embedx.report.page import HERE as STYLES
from embedx.statistics import Interval, mean_of_draws
from embedx.workspace import slug

PLOTS = "plots"
OWN = """
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.plots { gap: 0 2rem; align-items: start; }
.answer { border: 1px solid var(--faint); border-left: .35rem solid var(--ink); }
.answer { padding: .6rem .9rem; max-width: 48rem; }
"""


def style() -> Markup:
    """The style of a page: that of a comparison's, and what is a repair's own."""
    return Markup((STYLES / "page.css").read_text(encoding="utf-8") + OWN)  # noqa: S704  our own file


def written(model: Model, folder: Path, kind: str, drawn: Mapping[str, str], pages: Mapping[str, str]) -> Path:
    """Write a repaired head, plots {name: SVG text} and pages {file name: text} into a folder; returns the head's."""
    file = folder / f"{slug(model.dataset)}.{slug(model.name.backbone)}.{slug(model.name.short)}.{kind}.safetensors"
    write_model(model, file)
    (folder / PLOTS).mkdir(parents=True, exist_ok=True)
    for name, text in ({f"{PLOTS}/{name}.svg": svg for name, svg in drawn.items()} | dict(pages)).items():
        write_text(folder / name, text)
    return file


def facts(record: RepairRecord | GroupRepairRecord, asked: Mapping[str, str]) -> dict[str, str]:
    """What lies at the foot of a page: rows, what was asked for, digests, versions."""
    rows = {f"rows {what}": f"{n:,}" for what, n in record.rows.items()}
    seconds = {"seconds": f"{record.seconds:.1f}"}
    return rows | dict(asked) | dict(record.inputs) | dict(record.versions) | seconds


def over_seeds(shares: Sequence[Interval]) -> Interval:
    """The mean of a share over seeds with its interval, within 0 and 1."""
    m = mean_of_draws([share.value for share in shares])
    return Interval(m.value, max(0.0, m.low), min(1.0, m.high), m.n)


def points(value: float) -> str:
    """A difference of fractions in points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def p_value(value: float) -> str:
    """A p-value, three digits after the point."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
