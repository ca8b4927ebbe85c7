"""Figures and names in words: counts, means with their intervals, p-values, and names that fit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embedx.html import plain

if TYPE_CHECKING:
    from embedx.report.results import SeedMean


def count(numbers: Sequence[int]) -> str:
    """`642`, or `133–642` when the numbers differ."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def tally(values: Sequence[Any]) -> str:
    """`0.1` where all agree, else `0.1 (7), 1.0 (3)`: how many of the seeds have which."""
    counts = Counter(str(v) for v in values).most_common()
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{value} ({n})" for value, n in counts)


def mean_and_interval(mean: SeedMean) -> str:
    """`92.9 ± 0.2 (90.3–94.9)`, without a spread for a single seed."""
    spread = "" if mean.spread is None else f" ± {mean.spread:.1f}"
    return f"{mean.mean:.1f}{spread} ({mean.low:.1f}–{mean.high:.1f})"


def mean_interval_n(mean: SeedMean) -> str:
    """`92.9 ± 0.2 (90.3–94.9), n = 642`."""
    return f"{mean_and_interval(mean)}, n = {count(mean.rows)}"


def points(fraction: float) -> str:
    """A difference of accuracies without its sign: `2.0 points`."""
    return f"{100 * fraction:.1f} points"


def signed(fraction: float) -> str:
    """A difference of accuracies in points, `+2.0` or `−2.0`."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def p_text(p: float) -> str:
    """`p = 0.012`, or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def short(text: str, width: int) -> str:
    """At most `width` characters; the middle goes, names often differ at their ends."""
    text = plain(text)
    half = (width - 1) // 2
    return text if len(text) <= width else f"{text[: width - 1 - half]}…{text[-half:]}"


def wrap(text: str, width: int, lines: int = 3) -> list[str]:
    """The text in about `lines` lines at most, broken after separators where there are any."""
    broken = [""]
    for piece in re.findall(rf"[^ /_.:,-]{{1,{width - 1}}}[ /_.:,-]?|[ /_.:,-]", short(text, lines * width * 3 // 4)):
        if len(broken[-1]) + len(piece) > width:
            broken.append("")
        broken[-1] += piece
    return broken
