"""How strongly every image shows the spurious cues of its class: its spuriosity.

    s_c(x) = mean over i in S(c) of (r_i(x) - mu_ic) / sigma_ic

S(c) are the features that are spurious for class c, r_i(x) their values, mu and sigma their mean and standard deviation
(of the population, ddof = 0) over the rows labelled c, right or wrong. Low: the cue is absent; high: it is present
(Moayeri et al., NeurIPS 2023, section 4.1). Which rows mu and sigma are of, the paper leaves open:

    "train"      the training rows of the class, for the rows of every split: scores of all splits compare
    "per-split"  for each split its own rows, as in the paper's code
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from embedx import plugins
from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import SpuriosityError, UnknownName
from embedx.spuriosity.annotations import Cues
from embedx.spuriosity.annotations.votes import Rule
from embedx.spuriosity.features.activations import Progress, columns, silent, table
from embedx.spuriosity.records.ranking import Ranking
from embedx.store import FeatureCache

STATISTICS = ("train", "per-split")


def rank_by_features(
    manifest: Manifest,
    cache: FeatureCache,
    cues: Cues,
    *,
    statistics: str = "train",
    words: Mapping[int, Sequence[str]] | None = None,
    sources: Sequence[str] = (),
    min_votes: Rule | None = None,
    progress: Progress = silent,
) -> Ranking:
    """Rank by the features that are spurious for each class, in one pass over the cache.

    words    {class: its cues in words}, by default "feature 17"
    sources  who said so, of those of annotations; min_votes: the rule that `cues` follow from, where one was given
    Raises `SpuriosityError` when there is nothing to rank by, or for a class or feature that does not exist, and
    `UnknownName` for other statistics.
    """
    k, dim = len(manifest.classes), cache.header.dim
    cues = {c: tuple(dict.fromkeys(features)) for c, features in sorted(cues.items()) if features}
    if not cues:
        raise SpuriosityError(
            f"no class of {manifest.name} has a spurious feature, so there is nothing to rank by; annotate features "
            "with `embedx spuriosity annotate`"
        )
    for c, features in cues.items():
        if not 0 <= c < k:
            raise SpuriosityError(f"cues for class {c}, and {manifest.name} has {k:,} classes, counted from 0")
        if odd := [i for i in features if not 0 <= i < dim]:
            raise SpuriosityError(
                f"class {manifest.classes[c]!r} has feature {odd[0]} as a cue, and {cache.path} has {dim:,} features, "
                "counted from 0; annotate the features of this backbone"
            )
    listed = [cues.get(c, ()) for c in range(k)]
    ranked = np.isin(manifest.labels, list(cues))
    values = columns(manifest, cache, table(listed), ranked, progress)
    scores, dead = standardised(manifest, values, statistics)
    dropped = {c: tuple(listed[c][j] for j in sorted(js)) for c, js in sorted(dead.items())}
    named = {c: tuple((words or {}).get(c) or (f"feature {i}" for i in features)) for c, features in cues.items()}
    weights = str(cache.header.identity.get("weights", ""))
    return Ranking.of(
        manifest, cache.header.backbone, weights, scores, statistics=statistics, cues=named, dropped=dropped,
        features=cues, sources=tuple(sources), min_votes=min_votes,
    )  # fmt: skip


def rank_by_scores(
    manifest: Manifest,
    values: np.ndarray,
    *,
    backbone: str,
    weights: str,
    cues: Mapping[int, Sequence[str]],
    statistics: str = "train",
    sources: Sequence[str] = (),
) -> Ranking:
    """A ranking by any numbers that grow with the cue, such as the similarity of an image to a text.

    values  (n,) or (n, m), one column per cue of a row's class, NaN where there is none; standardised within the
            class as features are. Classes that are not in `cues` are not ranked
    """
    values = values.reshape(len(manifest), -1).astype(np.float64)
    values[~np.isin(manifest.labels, list(cues))] = np.nan
    scores, _ = standardised(manifest, values, statistics)
    words = {c: tuple(w) for c, w in cues.items()}
    facts = {"statistics": statistics, "cues": words, "dropped": {}, "sources": tuple(sources)}
    return Ranking.of(manifest, backbone, weights, scores, **facts)


def standardised(
    manifest: Manifest, values: np.ndarray, statistics: str = "train"
) -> tuple[np.ndarray, dict[int, set[int]]]:
    """(n,) mean of the z-scores of values (n, m) within classes, NaN for rows without; {class: its dead columns}.

    A column that is the same for all rows that mu and sigma are of has no z-score: it is dropped there. The rows of a
    class that has no column left have no score, and neither has a row that lacks a number which its class has.
    Raises `SpuriosityError` for a class that has no training row to take mu and sigma from.
    """
    if statistics not in STATISTICS:
        raise UnknownName(f"unknown statistics {statistics!r}: {plugins.nearest(statistics, STATISTICS)}")
    scores, dead = np.full(len(values), np.nan), {}
    rows = np.flatnonzero(~np.isnan(values).all(axis=1))
    rows = rows[np.argsort(manifest.labels[rows], kind="stable")]
    ranked, starts = np.unique(manifest.labels[rows], return_index=True)
    for c, of_class in zip(ranked.tolist(), np.split(rows, starts[1:]), strict=True):
        used = np.flatnonzero(~np.isnan(values[of_class]).all(axis=0))
        X, split = values[of_class][:, used].astype(np.float64), manifest.splits[of_class]
        whole = ~np.isnan(X).any(axis=1)
        for s in range(len(SPLITS)):
            source = X[whole & (split == (s if statistics == "per-split" else SPLITS.index("train")))]
            mine = whole & (split == s)
            if not mine.any():
                continue
            if not len(source):
                raise SpuriosityError(
                    f"class {manifest.classes[c]!r} has no usable training row to take mean and deviation from; add "
                    'some, or use the statistics "per-split"'
                )
            alive = source.min(axis=0) < source.max(axis=0)
            if not alive.all():
                dead.setdefault(c, set()).update(used[~alive].tolist())
            if alive.any():
                z = (X[mine][:, alive] - source[:, alive].mean(axis=0)) / source[:, alive].std(axis=0)
                scores[of_class[mine]] = z.mean(axis=1)
    return scores, dead
