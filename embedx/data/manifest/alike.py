"""Values that look alike: `Land` and `land` are two groups to a program and one to whoever wrote them.

They are told of, never taken for one unasked: `A` and `a` may be two classes of letters. `-O alike=fold` takes the
commonest spelling for all of them, `-O alike=keep` says that they are meant.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedx.data.manifest.table import Manifest
from embedx.data.manifest.words import look, reads_missing, rows, shape
from embedx.errors import ManifestError


@dataclass(frozen=True)
class Alike:
    """Words of one column that look alike, the commonest first, or one word that reads like a missing value.

    column  `label` or an attribute; `id`; or `column`, where the words are names of attributes
    rows    how many rows have each word
    """

    column: str
    words: tuple[str, ...]
    rows: tuple[int, ...]

    def __str__(self) -> str:
        # Where the eye cannot tell two words, their characters are spelled out.
        quoted = ascii if len({shape(w) for w in self.words}) < len(self.words) else repr
        if self.column == "id":
            return (
                f"ids {' and '.join(map(quoted, self.words))} are the same name in two encodings; are they two images?"
            )
        if self.column == "column":
            return f"the names of the attributes {' and '.join(map(quoted, self.words))} look alike"
        counted = [f"{quoted(w)} ({rows(n)})" for w, n in zip(self.words, self.rows, strict=True)]
        if len(counted) == 1:
            return f"{self.column} {counted[0]} reads like a missing value, and is taken as a value like any other"
        return f"{self.column} {' and '.join(counted)} look alike, and are told apart"


def alike(manifest: Manifest) -> list[Alike]:
    """All that look alike in a manifest, column by column; none where `-O alike=keep` says that they are meant."""
    return [] if manifest.distinct else list(_found(manifest))


def folded(manifest: Manifest) -> Manifest:
    """The manifest with one spelling, the commonest, for all labels and values that look alike.

    Rows, order and everything else stay. Remarks say what was taken for what. Raises `ManifestError` when one class
    is left.
    """
    labels, classes, remarks = _one_spelling("label", manifest.labels, manifest.classes)
    codes, values = {}, {}
    for attribute, words in manifest.values.items():
        codes[attribute], values[attribute], more = _one_spelling(attribute, manifest.codes[attribute], words)
        remarks += more
    if len(classes) < 2:
        raise ManifestError(
            f"{manifest.name}: all labels look alike, and alike=fold leaves one class ({', '.join(classes)})"
        )
    return replace(
        manifest, labels=labels, classes=classes, codes=codes, values=values, remarks=(*manifest.remarks, *remarks)
    )


def _found(manifest: Manifest) -> Iterator[Alike]:
    names = [*manifest.values]
    yield from (Alike("column", pair, ()) for pair in _sets(names, look))
    columns = {"label": (manifest.classes, manifest.labels)}
    columns |= {a: (manifest.values[a], manifest.codes[a]) for a in names}
    for column, (words, codes) in columns.items():
        n = dict(zip(words, _counts(codes, words), strict=True))
        used = [w for w in words if n[w]]
        for same in _sets(used, look):
            ordered = sorted(same, key=lambda w: -n[w])
            yield Alike(column, tuple(ordered), tuple(n[w] for w in ordered))
        yield from (Alike(column, (w,), (n[w],)) for w in used if reads_missing(w))
    special = [i for i in manifest.ids.tolist() if not i.isascii()]
    yield from (Alike("id", ids, (1,) * len(ids)) for ids in _sets(special, _encoded))


def _one_spelling(
    column: str, codes: np.ndarray, words: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Codes and words of a column after folding, and what to say of it."""
    n = dict(zip(words, _counts(codes, words), strict=True))
    stands_for = {w: w for w in words}
    remarks = []
    for same in _sets([w for w in words if n[w]], look):
        kept, *others = sorted(same, key=lambda w: -n[w])
        stands_for |= dict.fromkeys(others, kept)
        quoted = ascii if len({shape(w) for w in same}) < len(same) else repr
        listed = ", ".join(f"{quoted(w)} ({rows(n[w])})" for w in others)
        remarks.append(f"{column} {listed} taken for {quoted(kept)} ({rows(n[kept])})")
    spellings = tuple(w for w in words if stands_for[w] == w)
    code = {w: i for i, w in enumerate(spellings)}
    new = np.array([code[stands_for[w]] for w in words], dtype=np.int64)[codes]
    new.setflags(write=False)
    return new, spellings, remarks


def _sets(words: Iterable[str], key: Callable[[str], Hashable]) -> list[tuple[str, ...]]:
    """Words of one key, two or more together, in the order in which they come."""
    sets: dict[Hashable, list[str]] = defaultdict(list)
    for word in words:
        sets[key(word)].append(word)
    return [tuple(same) for same in sets.values() if len(same) > 1]


def _encoded(row_id: str) -> str:
    """One encoding of a name, as file systems of some machines spell accents in two characters."""
    return unicodedata.normalize("NFC", row_id)


def _counts(codes: np.ndarray, words: Sequence[str]) -> list[int]:
    return np.bincount(codes, minlength=len(words)).tolist()
