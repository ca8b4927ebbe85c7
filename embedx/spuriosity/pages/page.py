"""How pages are made of templates: everything escaped, one style and one script inside, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from embedx.html import breakable, plain
from embedx.spuriosity.annotations import Annotation
from embedx.statistics import Interval

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
WORDS = {"main_object": "main object", "separate_object": "another object", "background": "background"}


def page(template: str, **values: Any) -> str:
    """A page; what it is told of is escaped, and the page runs no script but its own."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from embedx.probes import supervision_in_words, supervision_of_record

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=lambda value: plain(value) if type(value) is str else value,
    )  # fmt: skip
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment.globals |= {
        "style": Markup(style),  # noqa: S704  our own file
        "script": Markup(script),  # noqa: S704  our own file
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    environment.filters |= {
        "percent": percent, "points": points, "share": share, "p": p_value, "signed": signed, "count": "{:,}".format,
        "significant": lambda x: f"{x:#.3g}".rstrip("."), "address": address, "breakable": breakable,
        "answer": lambda name: WORDS.get(name, name), "because": because, "decided": decided, "whisker": whisker,
        "supervision": lambda value: supervision_in_words(supervision_of_record(value)),
    }  # fmt: skip
    return environment


def address(path: str) -> str:
    """A relative path as the address of a link: a name with `?`, `#` or `%` in it stays a name."""
    return quote(path)


def percent(value: float | None) -> str:
    """A fraction as percent, one digit after the point."""
    return "–" if value is None else f"{100 * value:.1f}"


def share(value: float | None) -> str:
    """A probability as percent; what is not certain never reads as 0 or 100."""
    if value is None:
        return "–"
    shown = f"{100 * value:.0f}"
    return "< 1" if shown == "0" and value > 0 else "> 99" if shown == "100" and value < 1 else shown


def points(value: float) -> str:
    """A difference of fractions in points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def signed(value: float) -> str:
    """A number with its sign, two digits after the point."""
    return f"{value:+.2f}".replace("-", "−")


def p_value(value: float | None) -> str:
    """A p-value, three digits after the point."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def decided(annotation: Annotation) -> str:
    """What a label follows from, in words."""
    if annotation.votes:
        named = sum(v.spurious for v in annotation.votes)
        rule = f"{annotation.rule} votes are enough" if isinstance(annotation.rule, int) else f"rule: {annotation.rule}"
        return f"{named} of {len(annotation.votes)} votes for spurious, {rule}"
    return {
        "auto:attribute": "by what it tells of known attributes", "auto:text": "by similarity to texts",
        "auto:mask": "by where its maps lie",
    }.get(annotation.source, f"source: {annotation.source}")  # fmt: skip


def because(annotation: Annotation) -> list[str]:
    """What automatic sources saw, a line each."""
    mask, attribute, reasons = annotation.evidence.get("mask"), annotation.evidence.get("attribute"), []
    if mask and mask.get("share") is not None and mask.get("frame"):
        frame = sum(mask["frame"]) / len(mask["frame"])
        d = mask.get("difference")
        beyond = f": {points(d['value'])} points ({points(d['low'])} to {points(d['high'])})" if d else ""
        reasons.append(
            f"{100 * mask['share']:.0f} % of its activation lies outside the object, as does {100 * frame:.0f} % of "
            f"the frame{beyond}, n = {len(mask['frame'])} images"
        )
    if attribute and attribute.get("tests"):
        best = max(attribute["tests"], key=lambda t: (f"{t['attribute']}: {t['value']}" == annotation.cue, t["auroc"]))
        reasons.append(f"Tells {best['attribute']}: {best['value']} (AUROC {best['auroc']:.2f})")
    return reasons


def whisker(x: Interval, title: str, null: tuple[float, float] | None = None) -> Any:
    """A gap with its interval on an axis of -100 to +100 points, and as a grey band what a random ranking gives."""
    from markupsafe import Markup

    def at(v: float) -> str:
        return f"{60 + 56 * v:.1f}"

    band = ""
    if null:
        band = f'<rect class="null" x="{at(null[0])}" y="3" width="{56 * (null[1] - null[0]):.1f}" height="12"/>'
    return Markup(
        '<svg class="whisker" viewBox="0 0 120 18" width="120" height="18" role="img" aria-label="{}">{}'
        '<path class="axis" d="M60 1V17"/><path class="line" d="M{} 9H{}"/><circle cx="{}" cy="9" r="3.5"/></svg>'
    ).format(title, Markup(band), at(x.low), at(x.high), at(x.value))  # noqa: S704  numbers alone
