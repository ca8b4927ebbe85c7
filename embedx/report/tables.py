"""The comparison as a table for a paper: LaTeX with booktabs, or Markdown; a row per head and backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from embedx.evaluation.runs import Run
from embedx.report._points import Bar, count, plain
from embedx.report._rows import Row, rows

HEADINGS = (
    "backbone", "head", "worst group %", "worst group", "n", "average %", "adjusted average %", "supervision",
    "chosen by", "tried", "seeds", "converged",
)  # fmt: skip
NUMBERS = frozenset({"worst group %", "n", "average %", "adjusted average %", "tried", "seeds"})
NOTE = (
    "Test split; mean ± standard deviation over seeds where there are several; in brackets the 95 % interval, rows "
    "taken as independent, over seeds from the lowest to the highest end. Supervision: beyond class labels. Tried: "
    "configurations compared to choose the head."
)
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "–": "--", "±": r"$\pm$", "−": "$-$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def latex(runs: Sequence[Run]) -> str:
    r"""A `longtable`, which may run over pages; needs \usepackage{booktabs,longtable}."""
    columns = "".join("r" if h in NUMBERS else "l" for h in HEADINGS)
    head = " & ".join(_latex(h) for h in HEADINGS) + r" \\"
    lines = [
        r"% \usepackage{booktabs,longtable}", rf"\begin{{longtable}}{{{columns}}}", r"\toprule", head, r"\midrule",
        r"\endhead", r"\bottomrule", r"\endfoot",
    ]  # fmt: skip
    before = ""
    for row in rows(runs):
        if before and row.backbone != before:
            lines.append(r"\addlinespace")
        lines.append(" & ".join(_cells(row, _latex)) + r" \\")
        before = row.backbone
    return "\n".join([*lines, r"\end{longtable}", f"% {plain(runs[0].dataset)}. {NOTE}", ""])


def markdown(runs: Sequence[Run]) -> str:
    """A table as GitHub renders it, and below what its figures mean."""
    rule = ["---:" if h in NUMBERS else "---" for h in HEADINGS]
    body = [_cells(row, _markdown) for row in rows(runs)]
    lines = [f"| {' | '.join(cells)} |" for cells in (HEADINGS, rule, *body)]
    return "\n".join([*lines, "", f"{_markdown(runs[0].dataset)}: {NOTE}", ""])


def _cells(row: Row, escape: Callable[[str], str]) -> list[str]:
    figures = row.figures
    return [
        escape(text)
        for text in (
            row.backbone, row.head, figure(figures["worst_group"]), row.whose, count(figures["worst_group"].rows),
            figure(figures["average"]), figure(figures["adjusted_average"]), row.supervision, row.selection, row.tried,
            str(row.seeds), row.all_converged,
        )
    ]  # fmt: skip


def figure(b: Bar) -> str:
    """`92.9 ± 0.2 (90.3–94.9)`, without a spread for a single seed."""
    spread = "" if b.spread is None else f" ± {b.spread:.1f}"
    return f"{b.mean:.1f}{spread} ({b.low:.1f}–{b.high:.1f})"


def _latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in plain(text))


def _markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in r"\`*_[]<>|#~$!" else c for c in plain(text)).replace("&", "&amp;")
