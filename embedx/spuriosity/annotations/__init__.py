"""What people and automatic rules say of features: is this one core for the class, or spurious? One JSON line a pair.

`annotations.jsonl` holds one object per pair of a class and a feature: the fields of `Annotation`, and its version.
Lines may be appended, by several people at once: a later line of the same pair adds its votes, and a vote replaces the
earlier one of the same annotator, or is withdrawn. A line that cannot be read, such as a last one that was cut short by
a crash, is left out, and that is said.

The number of a feature means something in one network only, so every line carries the fingerprint of the weights.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedx import journal
from embedx.data.manifest import Manifest
from embedx.documents import Kind, plain
from embedx.errors import ProvenanceError, SpuriosityError
from embedx.files import locked, write_text
from embedx.plugins import nearest
from embedx.spuriosity.annotations.votes import ANSWERS, LABELS, Rule, Vote, decide, rule_of
from embedx.statistics import fleiss_kappa
from embedx.store import FeatureCache

FILE = "annotations.jsonl"
SOURCES = ("mturk", "local", "auto:attribute", "auto:text", "auto:mask")
KINDS = {"core": ("main_object", ""), "spurious": ("separate_object", "background", ""), "unsure": ("",)}
Cues = Mapping[int, tuple[int, ...]]
"""S(c): class code -> features that are spurious for that class; a class without any is absent."""
Notice = Callable[[str], None]


@dataclass(frozen=True)
class Said:
    """What is said of a pair without votes.

    label  core, spurious or unsure; kind, source, cue: as of an annotation
    """

    label: str
    kind: str
    source: str
    cue: str = ""

    def __post_init__(self) -> None:
        _check_label(self.label, self.kind, self.source)


def _check_label(label: str, kind: str, source: str) -> None:
    for name, value, choices in (("label", label, LABELS), ("source", source, SOURCES)):
        if value not in choices:
            raise ValueError(f"{name} is {value!r}; {nearest(str(value), choices)}")
    if kind not in KINDS[label]:
        raise ValueError(f"kind is {kind!r}; with the label {label}, {nearest('', KINDS[label])}")


@dataclass(frozen=True)
class Annotation:
    """What is said of one pair.

    dataset, backbone  where the pair was seen; weights: the fingerprint of the network, `identity["weights"]` of caches
    class_index  code of the class in the manifest; class_name its name there; class_id a public key (a synset) or ""
    feature      column of the cache; None for a direction that `cue` gives in words, in an image-text backbone
    rank         place of the feature by importance for the class, from 1; None and importance None where unknown
    label        core, spurious or unsure; kind: where the feature looks, as in the answers, or ""
    cue          what the feature shows, in words, or ""; the commonest word of the votes where they name one
    source       who or what said it first, one of `SOURCES`
    votes        what the label follows from by `rule`; without votes, it is what `source` decided
    rule         what it takes to call a feature spurious: more than half of the votes, all of them, or so many at least
    evidence     what an automatic source saw: plain JSON, under a key of its own for each source
    withdrawn    annotators who take their vote back with this line
    said         what was said without votes, before people voted; it holds again when all votes are withdrawn

    Raises `ValueError` for a value that cannot be.
    """

    dataset: str
    backbone: str
    weights: str
    class_index: int
    class_name: str
    feature: int | None
    label: str
    source: str
    class_id: str = ""
    rank: int | None = None
    importance: int | float | None = None
    kind: str = ""
    cue: str = ""
    votes: tuple[Vote, ...] = ()
    rule: Rule = "majority"
    evidence: Mapping[str, Any] = field(default_factory=dict)
    withdrawn: tuple[str, ...] = ()
    said: Said | None = None

    def __post_init__(self) -> None:
        for name in ("dataset", "backbone", "weights", "class_name"):
            value = getattr(self, name)
            if not value.strip():
                raise ValueError(f"{name} is {value!r}, expected a name")
        for name, least in (("class_index", 0), ("feature", 0), ("rank", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value!r}, expected a whole number from {least} on")
        if self.feature is None and not self.cue:
            raise ValueError("feature is null and there is no cue; a pair without a feature is known by its words")
        if self.importance is not None and not math.isfinite(self.importance):
            raise ValueError(f"importance is {self.importance!r}, expected a finite number or null")
        _check_label(self.label, self.kind, self.source)
        rule_of(self.rule)
        self._check_votes()
        plain(self.evidence)

    def _check_votes(self) -> None:
        names = [v.annotator for v in self.votes]
        if twice := next((n for i, n in enumerate(names) if n in names[:i]), None):
            raise ValueError(f"{twice!r} votes twice in one line, expected one vote of each annotator")
        if both := [n for n in names if n in self.withdrawn]:
            raise ValueError(f"{both[0]!r} votes and withdraws the vote in one line, expected one of the two")
        if self.votes and decide(self.votes, self.rule) != (self.label, self.kind):
            stated, expected = f"{self.label} {self.kind}".strip(), " ".join(decide(self.votes, self.rule)).strip()
            raise ValueError(f"the label is {stated!r}, and its {len(self.votes)} votes say {expected!r} ({self.rule})")

    @property
    def pair(self) -> tuple[Any, ...]:
        """What two lines have in common that are of one pair."""
        words = self.cue if self.feature is None else ""
        return (self.dataset, self.backbone, self.weights, self.class_index, self.feature, words)

    @property
    def unvoted(self) -> Said | None:
        """What is said without votes, by this line or before."""
        voteless = not self.votes and not self.withdrawn
        return Said(self.label, self.kind, self.source, self.cue) if voteless else self.said

    @property
    def empty(self) -> bool:
        """Whether nothing is said any more: all votes were withdrawn, and nobody said anything else."""
        return not self.votes and bool(self.withdrawn) and self.said is None

    def voted(self, votes: Sequence[Vote], rule: Rule | None = None) -> Annotation:
        """The same pair with these votes and the label that follows from them."""
        rule = self.rule if rule is None else rule_of(rule)
        label, kind = decide(votes, rule)
        return replace(self, votes=tuple(votes), rule=rule, label=label, kind=kind)


KIND = Kind(Annotation, FILE, "embedx spuriosity annotate", SpuriosityError, version=2, key="schema",
            again="mend the line or remove it", indent=None, ascii=False, steps={1: dict})  # fmt: skip


def read(path: Path, notice: Notice | None = None) -> tuple[Annotation, ...]:
    """All pairs of a file, by their first lines, votes of later lines added.

    notice  is told of each line that cannot be read or that contradicts earlier ones, which is then left out; without
            it, such a line is an error
    Raises `SpuriosityError` naming the line, and for a file that does not exist.
    """
    by_pair: dict[tuple[Any, ...], Annotation] = {}
    try:
        for number, fresh in journal.read(path, KIND, notice):
            if problem := include(by_pair, fresh):
                problem = f"{path}, line {number}: {problem}; {KIND.advice}"
                if notice is None:
                    raise SpuriosityError(problem)
                notice(f"note: a line is left out: {problem}")
    except FileNotFoundError as error:
        raise SpuriosityError(f"{path} does not exist; make it with `embedx spuriosity annotate`") from error
    return tuple(a for a in by_pair.values() if not a.empty)


def include(by_pair: dict[tuple[Any, ...], Annotation], fresh: Annotation) -> str:
    """Merge a line into what the lines before it say; returns why it contradicts them, and is left out, or ""."""
    try:
        by_pair[fresh.pair] = merged(by_pair[fresh.pair], fresh) if fresh.pair in by_pair else fresh
    except ValueError as error:
        return str(error)
    return ""


def merged(old: Annotation, new: Annotation) -> Annotation:
    """One pair said twice: votes are added, replaced or withdrawn; what is said without votes does not outvote people.

    A line without the public key of the class takes that of the other. Raises `ValueError` where the two disagree on
    what the class is called.
    """
    class_id = old.class_id or new.class_id
    if (old.class_name, class_id) != (new.class_name, new.class_id or class_id):
        before, after = (f"{a.class_name} {a.class_id}".strip() for a in (old, new))
        raise ValueError(f"class {new.class_index} is {after!r} here and {before!r} in an earlier line")
    votes = [v for v in {v.annotator: v for v in (*old.votes, *new.votes)}.values() if v.annotator not in new.withdrawn]
    voice = old if new.withdrawn and not new.votes else new if new.votes or not old.votes else old
    said = new.unvoted or old.unvoted
    again = (
        not (old.votes or new.votes) and old.source == new.source
    )  # a rule that was run again takes back what it said
    both = replace(
        voice, votes=(), said=None, withdrawn=(), rank=old.rank if new.rank is None else new.rank,
        cue=new.cue if again and not new.withdrawn else new.cue or old.cue,
        importance=old.importance if new.importance is None else new.importance,
        evidence={**old.evidence, **new.evidence}, label="unsure", kind="", class_id=class_id,
    )  # fmt: skip
    if votes:
        return replace(both, said=said, cue=_named(old, new, votes, both.cue, said)).voted(votes)
    if said:
        cue = said.cue if new.withdrawn else both.cue
        return replace(both, label=said.label, kind=said.kind, source=said.source, cue=cue)
    return replace(both, cue="", withdrawn=new.withdrawn or old.withdrawn)


def _named(old: Annotation, new: Annotation, votes: Sequence[Vote], cue: str, said: Said | None) -> str:
    """The commonest word of the votes, the latest of several; `cue` where no vote ever named one."""
    if words := Counter(v.cue for v in reversed(votes) if v.cue):
        return words.most_common(1)[0][0]
    if any(v.cue for v in (*old.votes, *new.votes)):  # and takes it back
        return said.cue if said else ""
    return cue


def write(path: Path, annotations: Iterable[Annotation]) -> None:
    """One line for each, the whole file or nothing of it, in place of what it held."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(map(KIND.text, annotations)))


def add(
    path: Path,
    fresh: Iterable[Annotation],
    cache: FeatureCache,
    manifest: Manifest,
    *,
    rule: Rule | None = None,
    notice: Notice | None = None,
) -> tuple[Annotation, ...]:
    """Merge annotations into what the file holds by now, whoever else adds to it; returns all that it holds then.

    rule  another one for the labels of all pairs with votes
    Raises as `read` and `check` do, of what is in the file, and `SpuriosityError` for what contradicts it.
    """
    with locked(path):
        by_pair = {a.pair: a for a in (_kept(path, notice) if path.is_file() else ())}
        check(tuple(by_pair.values()), cache, manifest)
        for a in fresh:
            try:
                by_pair[a.pair] = merged(by_pair[a.pair], a) if a.pair in by_pair else a
            except ValueError as error:
                raise SpuriosityError(
                    f"{path}: {error}; annotate into another folder, or mend the one that is wrong"
                ) from error
        annotations = tuple(a.voted(a.votes, rule) if rule is not None and a.votes else a for a in by_pair.values())
        write(path, annotations)
    return annotations


def _kept(path: Path, notice: Notice | None) -> tuple[Annotation, ...]:
    """What a file holds that is written anew: no line may be lost but a last one that was cut short."""
    if notice is None or not journal.is_torn(path.read_bytes().rpartition(b"\n")[2] or b"{}"):
        return read(path)
    problems: list[str] = []
    found = read(path, problems.append)
    if len(problems) > 1:
        return read(path)  # which says what is wrong
    notice(problems[0])
    return found


def check(annotations: Sequence[Annotation], against: FeatureCache | str, manifest: Manifest | None = None) -> None:
    """Refuse annotations of another network, or of classes that the manifest does not call so.

    against  the cache whose columns the features are meant to be, or the fingerprint of its weights
    Raises `ProvenanceError`, or `SpuriosityError` for a feature or a class that there is not.
    """
    cached = isinstance(against, FeatureCache)
    weights = str(against.header.identity.get("weights", "")) if cached else against
    where = f"the cache of {against.header.backbone}" if cached else "the features"
    for a in annotations:
        if a.weights != weights:
            raise ProvenanceError(
                f"feature {a.feature} of class {a.class_name!r} was annotated in {a.backbone} with weights "
                f"{a.weights[:12]}, and {where} comes from weights {weights[:12] or 'unknown'}: numbers of features "
                "mean nothing in another network; annotate this one, or use the cache of that one"
            )
        if cached and a.feature is not None and a.feature >= against.header.dim:
            raise SpuriosityError(
                f"class {a.class_name!r} has an annotation of feature {a.feature}, and {where} has "
                f"{against.header.dim:,} features, counted from 0; annotate again"
            )
        if manifest is None:
            continue
        name = dict(enumerate(manifest.classes)).get(a.class_index)
        if name != a.class_name:
            raise SpuriosityError(
                f"an annotation is of class {a.class_index}, {a.class_name!r}, and {manifest.name} calls that "
                f"{'nothing' if name is None else repr(name)}; annotate again, or restore the manifest"
            )


def spurious(annotations: Iterable[Annotation], min_votes: Rule | None = None) -> Cues:
    """S(c) of all pairs that are a feature; those in words alone have rankings of their own.

    min_votes  another rule than that of the labels, for the pairs with votes: a number, "majority" or "unanimous"
    """
    if min_votes is not None:
        rule_of(min_votes)
    cues: dict[int, set[int]] = {}
    for a in annotations:
        label = decide(a.votes, min_votes)[0] if a.votes and min_votes is not None else a.label
        if label == "spurious" and a.feature is not None:
            cues.setdefault(a.class_index, set()).add(a.feature)
    return {c: tuple(sorted(features)) for c, features in sorted(cues.items())}


@dataclass(frozen=True)
class Agreement:
    """Fleiss' kappa over `pairs` with two votes or more, `votes` in all; `alone` are the pairs left out, with one."""

    kappa: float | None
    pairs: int
    votes: int
    alone: int


def agreement(annotations: Iterable[Annotation], *, binary: bool = False) -> Agreement:
    """How far annotators agree on the three answers, or with `binary` on core or spurious; "unsure" is no answer."""
    names = ANSWERS[:3]
    counts = np.array([[sum(v.answer == n for v in a.votes) for n in names] for a in annotations], dtype=np.int64)
    counts = counts.reshape(-1, len(names))
    if binary:
        counts = np.column_stack([counts[:, 0], counts[:, 1:].sum(axis=1)])
    n = counts.sum(axis=1)
    several = counts[n >= 2]
    return Agreement(fleiss_kappa(several), len(several), int(several.sum()), int(np.count_nonzero(n == 1)))
