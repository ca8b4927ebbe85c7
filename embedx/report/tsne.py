"""A map of an embedding: t-SNE of test rows, coloured by label, by attribute and by group.

Distances and sizes of clusters on such a map mean nothing; it shows whether rows that are near each other in the
features share their label or their attribute.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedx.evaluation.split import Split
from embedx.report.drawing import COLOURS, GREY, MARKERS, svg_of
from embedx.report.text import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS, AXES, PERPLEXITY, SEED = 2000, 50, 30, 0
SHOWN = 10  # categories with a colour and a marker of their own; the rarer ones share a grey dot


def embedding_map(split: Split) -> str:
    """The map of a backbone's test rows as SVG text: 2,000 rows at most, drawn alike from every group, seed 0.

    Features are reduced to 50 principal components before t-SNE (van der Maaten and Hinton 2008, perplexity 30 or what
    fewer rows allow). The same split gives the same bytes on the same machine. Raises `ValueError` for fewer than four
    test rows, of which no map can be made.
    """
    rows = balanced(split.test.groups, ROWS, SEED)
    if len(rows) < 4:
        raise ValueError(f"{split.dataset} has {len(rows)} test rows; a map needs four at least")
    at = project(split.test.X[rows])
    labels, groups = split.test.y[rows], split.test.groups[rows]
    panels = [("label", labels, split.classes)]
    if split.has_groups:
        attributes, names = attributes_of(split, groups)
        panels += [("attribute", attributes, names), ("group", groups, split.group_names)]

    def draw() -> Figure:
        from matplotlib.figure import Figure

        side, gap, lines = 3.2, 0.15, max(min(len(np.unique(codes)), SHOWN + 1) for _, codes, _ in panels)
        height = side + 0.3 + 0.2 * lines
        figure = Figure(figsize=(len(panels) * (side + gap), height))
        for i, (title, codes, names) in enumerate(panels):
            ax = figure.add_axes((i / len(panels), 1 - side / height, side / (side + gap) / len(panels), side / height))
            for j, (name, rows_of) in enumerate(categories(codes, names)):
                colour = GREY if j == SHOWN else COLOURS[j % len(COLOURS)]
                marker = "." if j == SHOWN else MARKERS[j]
                ax.plot(
                    *at[rows_of].T,
                    marker,
                    color=colour,
                    ms=3,
                    mew=0,
                    alpha=0.75,
                    label=f"{name}, n = {rows_of.sum():,}",
                )
            ax.set(xticks=[], yticks=[])
            ax.margins(0.03)
            ax.set_title(f"by {title}", fontsize=9, loc="left")
            ax.legend(loc="upper left", bbox_to_anchor=(0, -0.01), frameon=False, fontsize=8, markerscale=2.2,
                      borderaxespad=0.2, handletextpad=0.1)  # fmt: skip
        figure.text(0, 1 + 0.25 / height, short(split.backbone, 90), fontweight="bold", va="bottom")
        return figure

    return _compact(svg_of(draw))


def balanced(groups: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Sorted positions of `most` rows at most: as many of every group as of the others, small groups whole."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(groups))
    order = shuffled[np.argsort(groups[shuffled], kind="stable")]
    n = np.bincount(groups)
    turn = np.concatenate([np.arange(k) for k in n])  # the how-manieth of its group each row of `order` is
    taken = order[np.lexsort((rng.permutation(len(groups)), turn))][:most]
    return np.sort(taken)


def project(X: np.ndarray) -> np.ndarray:
    """(n, 2) coordinates of rows X (n, d)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    width = min(AXES, *X.shape)
    reduced = PCA(width, svd_solver="full").fit_transform(X.astype(np.float64))
    perplexity = min(PERPLEXITY, (len(X) - 1) / 3)
    start: Any = np.zeros((len(X), 2))  # what init="pca" would be, but for features of a single column too
    start[:, : min(width, 2)] = reduced[:, :2] / max(reduced[:, 0].std(), np.finfo(float).tiny) * 1e-4
    return TSNE(perplexity=perplexity, init=start, random_state=SEED).fit_transform(reduced)


def attributes_of(split: Split, groups: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Attribute code of each row and the attributes' names: group = label * attributes + attribute."""
    many = len(split.group_names) // len(split.classes)
    names = [name.removeprefix(f"{split.classes[0]}/") for name in split.group_names[:many]]
    return groups % many, names


def categories(codes: np.ndarray, names: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """(name, which rows) of the categories that occur, in their order; beyond ten the rarest together as the last."""
    n = np.bincount(codes, minlength=len(names))
    frequent = np.sort(np.argsort(-n, kind="stable")[:SHOWN])
    rows_of = [(short(str(names[c]), 34), codes == c) for c in frequent if n[c]]
    rest = ~np.isin(codes, frequent)
    return [*rows_of, (f"{len(np.unique(codes[rest]))} others", rest)] if rest.any() else rows_of


def _compact(svg: str) -> str:
    """The same picture in a third of the bytes: thousands of points need neither six digits nor a style each."""
    svg = re.sub(r'(<use [^>]*?x=")([-\d.]+)(" y=")([-\d.]+)(")', lambda m: (
        f"{m[1]}{float(m[2]):.1f}{m[3]}{float(m[4]):.1f}{m[5]}"), svg)  # fmt: skip

    def shared(block: re.Match[str]) -> str:
        styles = set(re.findall(r'<use [^>]*?style="([^"]*)"', block[0]))
        if len(styles) != 1:
            return block[0]
        (style,) = styles
        points = re.sub(r'\s*(<use [^>]*?) style="[^"]*"', r"\1", block[0])
        return f'<g style="{style}">{points}</g>'

    return re.sub(r"(?:\s*<use [^>]*/>)+", shared, svg)
