"""The tables of `embedx spuriosity review --against`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedx.cli.spuriosity._figures import accuracy, p_value

if TYPE_CHECKING:
    from embedx.spuriosity.measures.label_noise import ClassNoise, FirstRows, Part
    from embedx.spuriosity.records.review_check import ReviewCheck
    from embedx.statistics import Interval

SHOWN = 20  # classes of the table


def show_check(check: ReviewCheck) -> None:
    """Orders, depths, classes and kinds of rows, and what to keep in mind."""
    from embedx.cli._output import remark

    whole = check.parts[0]
    _show_orders(check)
    _show_depths(whole)
    _show_classes(check.classes)
    _show_groups(check)
    if not whole.orders:
        remark(
            f"note: {whole.errors:,} of {whole.n:,} rows are labelled wrongly, so no order can tell them from others"
        )
    for count, what in (
        (check.unknown, f"rows are left out, as {check.table} knows no label of theirs"),
        (check.unlisted, f"rows of {', '.join(check.splits)} are left out, as {check.table} does not list them"),
        (check.left_out, "rows are left out, as they have no features"),
    ):
        if count:
            remark(f"note: {count:,} {what}")
    if "train" in check.splits:
        remark(
            "note: on train the review goes by probabilities of a head that was fitted there, "
            + {
                "cross-validated": "confident learning and label probability by those of a cross-validated plain head",
                "none": "and train is too large to be cross-validated, so confident learning says nothing of it",
            }[check.probabilities["train"]]
        )
    if check.form == "labelerrors.com":
        remark(
            "note: this table lists only images that confident learning doubted, so base rates are of these, and it "
            "is no fair judge between the review and confident learning"
        )


def times(x: Interval | None) -> str:
    """A ratio with its interval: `3.2 (2.1–4.0)`."""
    return "–" if x is None else f"{x.value:.2f} ({x.low:.2f}–{x.high:.2f})"


def _range(x: tuple[float, float] | None) -> str:
    return "–" if x is None else f"{100 * x[0]:.1f}–{100 * x[1]:.1f}"


def _show_orders(check: ReviewCheck) -> None:
    """Each order of each part, at as many rows as the review flags."""
    from embedx.cli._output import INTERVALS, show_table

    rows = []
    for part in check.parts:
        for order in part.orders:
            d = order.at(part.flagged)
            rows.append([
                part.name, order.name, f"{order.rows:,}", f"{order.errors:,}", _area(order.auroc),
                "–" if order.beyond is None else _signed(order.beyond), *_depth(d),
            ])  # fmt: skip
    headings = ("rows", "order", "n", "errors", "AUROC", "minus confident learning", "k", "precision at k, %", "lift",
                "over confident learning")  # fmt: skip
    columns = [(h, h not in ("rows", "order")) for h in headings]
    caption = f"k: the rows that the review flags; in brackets: {INTERVALS}"
    title = f"{check.dataset}: the review by {check.model} against {check.table}"
    show_table(title, columns, rows, caption=caption, spare=("over confident learning", "minus confident learning"))


def _depth(d: FirstRows | None) -> tuple[str, ...]:
    return ("–",) * 4 if d is None else (f"{d.k:,}", accuracy(d.precision), times(d.lift), times(d.ratio))


def _area(x: Interval) -> str:
    return f"{x.value:.3f} ({x.low:.3f}–{x.high:.3f})"


def _signed(x: Interval) -> str:
    return f"{x.value:+.3f} ({x.low:+.3f} to {x.high:+.3f})"


def _show_depths(part: Part) -> None:
    """Precision at several k, the orders beside each other and beside a random one."""
    from embedx.cli._output import INTERVALS, show_table

    review = part.order("review")
    if review is None:
        return
    others = [part.order(name) for name in ("confident learning", "label probability")]
    rows = []
    for d in review.depths:
        what = [w for n, w in ((part.flagged, "flagged"), (part.suspected, "confident learning flags"),
                               (part.errors, "errors")) if n == d.k]  # fmt: skip
        beside = [o and o.at(d.k) for o in others]
        rows.append([
            f"{d.k:,}", ", ".join(what), accuracy(d.precision), *("–" if b is None else accuracy(b.precision)
                                                                for b in beside),
            _range(d.random), times(d.lift), times(d.ratio), p_value(d.p),
        ])  # fmt: skip
    headings = ("k", "as many as", "review, %", "confident learning, %", "label probability, %", "random order, %",
                "lift", "over confident learning", "p")  # fmt: skip
    columns = [(h, h != "as many as") for h in headings]
    caption = f"{part.errors:,} of {part.n:,} rows are errors, {accuracy(part.base)} %; in brackets: {INTERVALS}"
    show_table("Errors among the first k", columns, rows, caption=caption, spare=("p", "lift", "label probability, %"))


def _show_classes(classes: tuple[ClassNoise, ...]) -> None:
    """The classes with the most flags."""
    from embedx.cli._output import INTERVALS, remark, show_table

    shown = sorted(classes, key=lambda c: (-c.flagged, -c.errors, c.label))[:SHOWN]
    rows = [
        [c.name, f"{c.n:,}", f"{c.errors:,}", f"{c.flagged:,}", f"{c.found:,}",
         "–" if c.suspected is None else f"{c.suspected:,}",
         "–" if c.precision is None else accuracy(c.precision), _range(c.random), times(c.lift),
         "–" if c.p is None else p_value(c.p), "–" if c.holm is None else p_value(c.holm),
         "–" if c.auroc is None else _area(c.auroc)]
        for c in shown
    ]  # fmt: skip
    headings = ("class, as labelled", "n", "errors", "flagged", "found", "confident learning finds", "precision, %",
                "random order, %", "lift", "p", "p (Holm)", "AUROC")  # fmt: skip
    columns = [(h, h != "class, as labelled") for h in headings]
    spare = ("p", "confident learning finds", "random order, %", "lift")
    show_table("Classes", columns, rows, caption=f"in brackets: {INTERVALS}", spare=spare)
    if len(shown) < len(classes):
        remark(f"note: the {SHOWN} of {len(classes):,} classes with the most flags; review-check.json has all")


def _show_groups(check: ReviewCheck) -> None:
    """Shares of wrong labels and of several objects."""
    from embedx.cli._output import INTERVALS, show_table

    rows = [
        [g.name, f"{g.n:,}", accuracy(g.wrong), "–" if g.several is None else accuracy(g.several), accuracy(g.either)]
        for g in check.groups
    ]  # fmt: skip
    columns = (("rows", False), ("n", True), ("labelled wrongly, %", True), ("several real labels, %", True),
               ("either, %", True))  # fmt: skip
    show_table("What the rows are", columns, rows, caption=f"in brackets: {INTERVALS}")
