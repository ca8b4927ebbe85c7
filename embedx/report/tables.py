"""The comparison as a table for a paper: LaTeX with booktabs, or Markdown; a row per head and backbone."""

from __future__ import annotations

from collections.abc import Callable

from embedx.evaluation.runs import independent
from embedx.html import plain
from embedx.report.comparison import Comparison
from embedx.report.results import HeadResult
from embedx.report.text import count, mean_and_interval

HEADINGS = (
    "backbone", "head", "worst group %", "worst group", "n", "average %", "adjusted average %", "supervision",
    "chosen by", "tried", "seeds", "converged",
)  # fmt: skip
NUMBERS = frozenset({"worst group %", "n", "average %", "adjusted average %", "tried", "seeds"})
NOTE = (
    "Test split; mean ± standard deviation over seeds where there are several; in brackets the 95 % interval, {drawn}, "
    "over seeds from the lowest to the highest end. Supervision: beyond class labels. Tried: configurations compared "
    "to choose the head."
)
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "–": "--", "±": r"$\pm$", "−": "$-$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def latex(comparison: Comparison) -> str:
    r"""A `longtable`, which may run over pages; needs \usepackage{booktabs,longtable}."""
    columns = "".join("r" if h in NUMBERS else "l" for h in HEADINGS)
    head = " & ".join(_latex(h) for h in HEADINGS) + r" \\"
    lines = [
        r"% \usepackage{booktabs,longtable}", rf"\begin{{longtable}}{{{columns}}}", r"\toprule", head, r"\midrule",
        r"\endhead", r"\bottomrule", r"\endfoot",
    ]  # fmt: skip
    for i, heads in enumerate(comparison.results.values()):
        lines += [r"\addlinespace"] * bool(i)
        lines += [" & ".join(_cells(result, _latex)) + r" \\" for result in heads]
    return "\n".join([*lines, r"\end{longtable}", f"% {plain(comparison.dataset)}. {_note(comparison, plain)}", ""])


def markdown(comparison: Comparison) -> str:
    """A table as GitHub renders it, and below what its figures mean."""
    rule = ["---:" if h in NUMBERS else "---" for h in HEADINGS]
    body = [_cells(result, _markdown) for result in comparison.rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (HEADINGS, rule, *body)]
    return "\n".join([*lines, "", f"{_markdown(comparison.dataset)}: {_note(comparison, _markdown)}", ""])


def _note(comparison: Comparison, escape: Callable[[str], str]) -> str:
    return NOTE.format(drawn=escape(independent(comparison.runs)))


def _cells(result: HeadResult, escape: Callable[[str], str]) -> list[str]:
    texts = (
        result.backbone, result.head, mean_and_interval(result.worst_group), result.worst_group_name,
        count(result.worst_group.rows), mean_and_interval(result.average), mean_and_interval(result.adjusted_average),
        result.supervision, result.selection, result.tried, str(result.seeds), result.all_converged,
    )  # fmt: skip
    return [escape(text) for text in texts]


def _latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in plain(text))


def _markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in r"\`*_[]<>|#~$!" else c for c in plain(text)).replace("&", "&amp;")
