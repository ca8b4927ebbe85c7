"""HTML that is safe whatever the names in it: templates that escape, and the tables that values show in a notebook."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import category

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

JOINERS = "\u200c\u200d"
SHOWN = 60
"""Rows of a table in a notebook; more are counted, not shown."""
TABLE = """\
<table>
{% if caption %}<caption style="text-align: left">{{ caption }}</caption>
{% endif %}
<thead><tr>{% for heading in headings %}<th{{ right if heading in numbers }}>{{ heading }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}
<tr>{% for heading, cell in row %}<td{{ right if heading in numbers }}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
{% if more %}<tr><td colspan="{{ headings|length }}">and {{ "{:,}".format(more) }} more rows</td></tr>
{% endif %}
</tbody>
</table>
"""
FACTS = """\
<table>
{% if caption %}<caption style="text-align: left">{{ caption }}</caption>
{% endif %}
<tbody>
{% for name, value in values.items() %}
<tr><th style="text-align: left">{{ name }}</th><td style="text-align: left">{{ value }}</td></tr>
{% endfor %}
</tbody>
</table>
"""


def plain(text: str) -> str:
    """Without control characters, direction overrides and half characters, which no document may hold.

    Blanks of every width stay: Japanese puts one of its own between the parts of a name.
    """
    return "".join(c if c.isprintable() or c in JOINERS or category(c) == "Zs" else "\ufffd" for c in text)


def breakable(name: str) -> Markup:
    """A name that may be broken after its separators."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_.:/-])", plain(name)))


def environment(folder: Path | None = None) -> Environment:
    """The templates of a folder: every value is escaped and `plain`, and one that is missing is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=None if folder is None else FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_clean,
    )  # fmt: skip


def _clean(value: Any) -> Any:
    return plain(value) if type(value) is str else value  # not Markup, which is our own


def script_hash(script: str) -> str:
    """SHA-256 of a script, as a Content-Security-Policy names it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def table(
    headings: Sequence[str], rows: Sequence[Sequence[Any]], *, caption: str = "", numbers: Collection[str] = ()
) -> str:
    """A table for a notebook, everything escaped; the first `SHOWN` rows.

    numbers  headings of the columns that are set to the right
    """
    from markupsafe import Markup

    return environment().from_string(TABLE).render(
        headings=headings, rows=[list(zip(headings, row, strict=True)) for row in rows[:SHOWN]], caption=caption,
        numbers=numbers, more=max(0, len(rows) - SHOWN), right=Markup(' style="text-align: right"'),
    )  # fmt: skip


def facts(caption: str, values: Mapping[str, Any]) -> str:
    """Names and values, a line each, for a notebook; everything escaped."""
    return environment().from_string(FACTS).render(caption=caption, values=values)
