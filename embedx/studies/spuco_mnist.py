"""SpuCoMNIST: what strength of the shortcut does to the worst group, and what inferred groups are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedx.evaluation.runs import Runs
from embedx.probes import GROUP_NEEDS
from embedx.report.ranks import critical_difference
from embedx.report.text import p_text, signed
from embedx.statistics import Correlation, Interval, difference, holm, spearman
from embedx.statistics.across_datasets import ranks_over_datasets
from embedx.studies.drawing import lines, mean_of
from embedx.studies.outcome import Answer, Outcome, Section

if TYPE_CHECKING:
    import pandas as pd

PLAIN, INFERRED, LABELLED = "plain", "inferred groups", "group labels"
ARI, STRENGTH = "ARI within classes", "share of train with its class's colour"
CELL = ["table", "difficulty", "correlation", "backbone"]
QUALITY = {"inferred.ari": ARI, "inferred.recall.value": "minority found"}
# The article: LeNet on SpuCoMNIST, magnitude_large, 0.995. Averages weight groups by their shares of train.
ARTICLE = {"strength": 0.995, "difficulty": "magnitude_large"}
PRINTED = (("ERM, one epoch", PLAIN, 99.494, 0.0), ('"GEORGE"', "george", 93.85, 8.585))
LISTING = (
    "Its listing builds a new network for the second stage and gives the optimiser the weights of that one, but hands "
    "the trainer the first network: no step changes either, and the network that is evaluated is as it was drawn, so "
    "that the printed 93.85 % and 8.585 % cannot come from the listing. It also clusters the outputs of the network "
    "into 2 where there are 5 colours, and draws clusters alike where GEORGE minimises the worst case over them"
)


def answer(outcome: Outcome) -> Answer:
    """One section a question."""
    frame = _told(outcome)
    painted = outcome.cells[0].manifest.source.rpartition("painted from ")[2]
    sections = (_strength(frame, painted), _gap(frame), _quality(frame))
    article = _article(frame, outcome.cells[0].runs, _of_colour(outcome))
    return Answer(Answer.of(*sections).summary, (*sections, article))


def _told(outcome: Outcome) -> pd.DataFrame:
    """The frame with the family of every head: plain, of inferred groups, or fitted with group labels."""
    frame = outcome.frame.copy()
    frame = frame.sort_values(["table", "difficulty", "correlation"], kind="stable")
    frame["strength"] = frame["correlation"].map("{:g}".format)  # words, which stand evenly on an axis
    frame[ARI] = frame["inferred.ari"]
    frame["family"] = PLAIN
    frame.loc[frame["inferred.ari"].notna(), "family"] = INFERRED
    frame.loc[frame["needs"].map(lambda needs: not GROUP_NEEDS.isdisjoint(needs)), "family"] = LABELLED
    return frame


def _strength(frame: pd.DataFrame, painted: str) -> Section:
    """How the worst group of the plain head falls."""
    parts, evidence = [], []
    for difficulty, rows in frame.loc[frame["head"] == PLAIN].groupby("difficulty", sort=False):
        by = rows.sort_values("correlation")
        weak, strong = by.iloc[0], by.iloc[-1]
        a, b = _interval(weak), _interval(strong)
        fall = difference(a, b, a.n)
        parts.append(
            f"{difficulty}: {_percent(a)} at {weak['correlation']:g}, {_percent(b)} at {strong['correlation']:g}"
        )
        evidence.append(f"{difficulty}: {signed(fall.value)} points ({signed(fall.low)} to {signed(fall.high)})")
    plot = lines(frame, "strength", by="head", panels="difficulty", xlabel=STRENGTH)
    return Section(
        "How does the worst group fall with the strength of the shortcut?",
        f"Worst group of the plain head on images painted from {painted}: {'; '.join(parts)}.",
        "Weakest minus strongest, from the intervals of both (Newcombe), on the same test images: "
        f"{'; '.join(evidence)}.",
        (("Worst group against strength", plot),),
    )


def _gap(frame: pd.DataFrame) -> Section:
    """Plain, the best of inferred groups, the best with group labels: of each cell, chosen on validation."""
    import pandas as pd

    keys = [*CELL, "family", "head"]
    grouped: Any = frame.groupby(keys, sort=False)[["validation_worst_group", "worst_group"]]
    means = grouped.mean().reset_index()
    best = means.loc[means.groupby([*CELL, "family"], sort=False)["validation_worst_group"].idxmax()]
    scores = best.pivot_table(index=CELL, columns="family", values="worst_group", sort=False)
    families = [name for name in (PLAIN, INFERRED, LABELLED) if name in scores]
    table = scores[families].dropna()
    ranks, mean = ranks_over_datasets(table.to_numpy()), 100 * table.mean()
    gained, gap = mean[INFERRED] - mean[PLAIN], mean[LABELLED] - mean[PLAIN]
    if gap <= 0:
        closed = "group labels are not ahead of the plain head here, so that there is no gap to close"
    elif gained <= 0:
        closed = f"inferred groups gain nothing over the plain head, group labels {gap:.1f} points"
    else:
        closed = f"inferred groups close {100 * gained / gap:.0f} % of the {gap:.1f} points that group labels gain"
    words = ", ".join(f"{name} {mean[name]:.1f} %" for name in families)
    pairs = "; ".join(
        f"{families[p.first]} and {families[p.second]}: {signed(p.difference)} points, {p_text(p.holm)}"
        for p in ranks.pairs
    )
    few = (
        f" So few cells cannot tell any pair: the smallest corrected p is {ranks.least_holm:.2g}."
        * ranks.too_few_for_pairs
    )
    shown = best.pivot_table(index=CELL, columns="family", values="head", aggfunc="first", sort=False)
    rows = pd.DataFrame([
        {"difficulty": key[1], "strength": key[2], "backbone": key[3]}
        | {f"{name} %": f"{100 * table.loc[key, name]:.1f} ({shown.loc[key, name]})" for name in families}
        for key in table.index
    ])  # fmt: skip
    return Section(
        "Do heads without group labels close the gap to heads with them?",
        f"Mean worst group over {len(table):,} cells: {words}; {closed}. All may choose settings by group labels on "
        "validation.",
        f"Wilcoxon's signed ranks over cells, Holm's correction: {pairs}. Friedman: {p_text(ranks.p)}.{few} Cells "
        "share images, so that p is rather too small.",
        (("Mean ranks over cells", critical_difference(ranks, families)),),
        (("Worst group on test, and which head validation chose", rows),),
    )


def _quality(frame: pd.DataFrame) -> Section:
    """How good inferred groups are, and whether better groups make better heads."""
    import pandas as pd

    plain = frame.loc[frame["head"] == PLAIN].groupby(CELL)["worst_group"].mean().rename("plain_worst_group")
    own = frame.loc[frame["family"] == INFERRED].groupby([*CELL, "head"], sort=False).mean(numeric_only=True)
    own = own.reset_index().merge(plain, on=CELL)
    own["gain"] = own["worst_group"] - own["plain_worst_group"]
    found = {name: spearman(own[name].tolist(), own["gain"].tolist()) for name in QUALITY if own[name].notna().all()}
    told = {name: c for name, c in found.items() if c is not None}
    adjusted = dict(zip(told, holm([c.p for c in told.values()]), strict=True))
    best = own.groupby("head", sort=False)[list(QUALITY)].mean()
    words = "; ".join(
        f"{head}: ARI {row['inferred.ari']:.2f}, {100 * row['inferred.recall.value']:.0f} % of the minority found"
        for head, row in best.iterrows()
    )
    helps = [name for name, c in told.items() if adjusted[name] < 0.05 and c.rho > 0]
    verdict = (
        f"Better groups go with a larger gain over the plain head ({' and '.join(QUALITY[n] for n in helps)})"
        if helps
        else "That better groups go with a larger gain over the plain head is not shown"
    )
    rows = pd.DataFrame([
        {
            "difficulty": r["difficulty"], "strength": r["correlation"], "head": r["head"],
            "ARI": f"{r['inferred.ari']:.3f}", "agreement %": _share(r["inferred.agreement.value"]),
            "classes alone %": _share(r["inferred.classes_alone"]),
            "minority found %": _share(r["inferred.recall.value"]),
            "minority among found %": _share(r.get("inferred.precision.value")),
            "gain, points": signed(r["gain"]),
        }
        for _, r in own.iterrows()
    ])  # fmt: skip
    plot = lines(frame.loc[frame["family"] == INFERRED], "strength", ARI, "head", "difficulty", xlabel=STRENGTH)
    return Section(
        "Are inferred groups good, and does their quality predict the worst group?",
        f"{verdict} ({len(own):,} heads on cells). Means over cells: {words}.",
        "; ".join(_in_words(QUALITY[name], c, adjusted[name]) for name, c in told.items())
        + ". Heads on one cell share images, so that intervals are rather too narrow.",
        (("Adjusted Rand index within classes against strength", plot),),
        (("Inferred groups", rows),),
    )


def _article(frame: pd.DataFrame, runs: Runs, of_colour: dict[str, float]) -> Section:
    """The article's figures beside ours."""
    import pandas as pd

    here = frame.loc[frame["difficulty"] == ARTICLE["difficulty"]]
    if here.empty:
        here = frame
    strength = min(here["correlation"].unique(), key=lambda c: abs(c - ARTICLE["strength"]))
    here = here.loc[here["correlation"] == strength]
    rows, words = [], []
    for name, head, average, worst in PRINTED:
        own = here.loc[here["head"] == head]
        if own.empty:
            continue
        ours = {y: mean_of(own, y) for y in ("adjusted_average", "worst_group")}
        shown = {y: f"{100 * m.value:.1f} ({100 * m.low:.1f}–{100 * m.high:.1f})" for y, m in ours.items()}
        rows.append({
            "article": name, "average, article %": average, "worst, article %": worst, "ours": head,
            "adjusted average, ours %": shown["adjusted_average"], "worst, ours %": shown["worst_group"],
        })  # fmt: skip
        words.append(f"{name} {average:g} % and {worst:g} %, our {head} {' and '.join(shown.values())} %")
    alone = 100 * of_colour[f"{here['difficulty'].iloc[0]} {strength:g}"]
    return Section(
        "What of the article's figures?",
        f"Average and worst group at strength {strength:g}: {'; '.join(words)}. A classifier that sees the colour only "
        f"has exactly {alone:.3f} % and 0 % here: the article's 99.494 % and 0 % are that classifier's, no network's "
        f"skill. {LISTING}.",
        f"Ours: linear heads on {here['backbone'].iloc[0]}, test n = {runs[0].rows['test']:,}, intervals over seeds "
        "or, of one seed, of the rows; another network, other images and another protocol than the article's.",
        (),
        (("The article's figures beside ours", pd.DataFrame(rows)),),
    )


def _of_colour(outcome: Outcome) -> dict[str, float]:
    """{cell: share of the training rows that have the colour of their class}."""
    shares = {}
    for cell in outcome.cells:
        manifest = cell.manifest
        train = manifest.splits == 0
        same = manifest.labels[train] == manifest.codes["background"][train]
        shares[f"{cell.axes['difficulty']} {cell.axes['correlation']:g}"] = float(same.mean())
    return shares


def _interval(row: pd.Series) -> Interval:
    values: Any = row
    value, low, high, n = (values[f"worst_group{end}"] for end in ("", "_low", "_high", "_n"))
    return Interval(float(value), float(low), float(high), int(n))


def _percent(x: Interval) -> str:
    return f"{100 * x.value:.1f} % ({100 * x.low:.1f}–{100 * x.high:.1f}, n = {x.n:,})"


def _share(value: float | None) -> str:
    return "–" if value is None or value != value else f"{100 * value:.1f}"  # noqa: PLR0124  NaN


def _in_words(name: str, c: Correlation, p: float) -> str:
    interval = "" if c.low is None or c.high is None else f" ({c.low:.2f} to {c.high:.2f})"
    return f"Spearman's rank correlation of {name} and gain: {c.rho:.2f}{interval}, {p_text(p)} (Holm), n = {c.n:,}"
