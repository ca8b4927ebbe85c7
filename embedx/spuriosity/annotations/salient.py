"""The public votes of Salient ImageNet, from the reader's own copy of the table, as annotations; and back to a table.

Five workers looked at each of five features of 1,000 classes (Singla and Feizi 2022; Moayeri et al. 2023): 5,000 pairs,
of which three votes of five call 630 spurious, over 357 classes. The table is `discover_spurious_features.csv`, under a
licence that forbids passing it on, so it is read from where the user has it, and what the workers wrote in their own
words stays in it unless asked for.

The features are those of one network, `robust:madry-l2-eps3`. No fingerprint of it was ever published, so what counts
is, in this order:
  its name      the cache was made by `robust:madry-l2-eps3`, which refuses the files known to be its siblings'
  a statement   the cache was made from a file without a history (`checkpoint:`, `py:`), and the user states that its
                weights are those, by their fingerprint
  its numbers   `recognised`: the features of the table are among the most important ones of their classes in the cache
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from embedx.data.manifest import Manifest
from embedx.errors import ProvenanceError, SpuriosityError
from embedx.files import locked, write_text
from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.annotations.salient_table import ANSWERS, COLUMNS, SYNSET, content, pairs_of, rows_of
from embedx.spuriosity.annotations.votes import Rule, Vote
from embedx.store import FeatureCache

VOTES = 5
SPEC, MODEL, DIM = "robust:madry-l2-eps3", "resnet50/madry-l2-eps3", 2048
WORKER = "mturk:"
WITHIN, SHARE = 4, 0.5
"""`recognised` looks among 4 times as many features as a class has annotated; half of them have to be there."""


def read(
    path: Path,
    manifest: Manifest,
    cache: FeatureCache,
    *,
    rule: Rule = "majority",
    votes: int | None = VOTES,
    notes: bool = False,
    stated: str = "",
    notice: Callable[[str], None] | None = None,
) -> tuple[Annotation, ...]:
    """The annotations of a table of votes, for a manifest whose classes are synsets, found by these and by no number.

    rule    what it takes to call a feature spurious; any can be chosen later, as the votes are kept
    votes   how many every pair must have; None: any number
    notes   also keep what the workers wrote
    stated  the fingerprint of the weights, for a cache that does not say itself that it is the right network
    notice  is told of classes of the table that the manifest does not have

    Raises `SpuriosityError` for a table that is not of this kind, naming the line, and `ProvenanceError` for a cache of
    another network.
    """
    basis = require_checkpoint(cache, stated)
    data = content(path)
    pairs = pairs_of(path, rows_of(path, data), votes)
    code = _codes(path, manifest, {synset for synset, _ in pairs}, notice)
    evidence = {"table": {"sha256": hashlib.sha256(data).hexdigest(), "network": basis}}
    annotations: list[Annotation] = []
    for (synset, feature), rows in pairs.items():
        if synset not in code:
            continue
        if feature >= cache.header.dim:
            raise SpuriosityError(
                f"{path}, line {rows[0].line}: feature {feature}, and the cache of {cache.header.backbone} has "
                f"{cache.header.dim:,}, counted from 0; use the cache of {SPEC}"
            )
        start = Annotation(
            dataset=manifest.name, backbone=cache.header.backbone, weights=str(cache.header.identity["weights"]),
            class_index=code[synset], class_id=synset, class_name=manifest.classes[code[synset]], feature=feature,
            rank=rows[0].rank, label="unsure", source="mturk", evidence=evidence,
        )  # fmt: skip
        answers = [Vote(WORKER + r.worker, r.answer, r.confidence, r.reasons if notes else "") for r in rows]
        annotations.append(start.voted(answers, rule))
    return tuple(sorted(annotations, key=lambda a: (a.class_index, a.rank or 0)))


def write(path: Path, annotations: Iterable[Annotation]) -> int:
    """A table of the votes in the columns of the public one; returns how many it holds.

    Votes for "unsure", an answer that the public table does not have, are left out. Raises `SpuriosityError` for a pair
    without a rank, for one that is no feature, and for a file that is there and holds anything that the new one does
    not: it is somebody's only copy.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    written = 0
    for a in annotations:
        if not a.votes:
            continue
        if a.feature is None or a.rank is None:
            raise SpuriosityError(
                f"{a.cue or f'feature {a.feature}'!r} of class {a.class_name!r} has no "
                f"{'number' if a.feature is None else 'rank'}, and the table of votes needs one; leave it out"
            )
        for vote in a.votes:
            if vote.answer in ANSWERS:
                sure = "" if vote.confidence is None else str(float(vote.confidence))
                worker = vote.annotator.removeprefix(WORKER)
                place = (a.class_id or a.class_name, a.class_index, a.feature, a.rank)
                table.writerow([worker, *place, vote.answer, sure, vote.note])
                written += 1
    with locked(path):
        lost = set(_lines(path.read_bytes().decode(errors="replace"))) if path.is_file() else set()
        if lost := lost - set(_lines(text.getvalue())):
            raise SpuriosityError(
                f"{path} is there already, and {len(lost):,} of its lines would go (for example {min(lost)[:5]}); name "
                "another file"
            )
        write_text(path, text.getvalue())
    return written


def _lines(text: str) -> list[tuple[str, ...]]:
    return [tuple(cells) for cells in csv.reader(io.StringIO(text, newline=""))]


def require_checkpoint(cache: FeatureCache, stated: str = "") -> str:
    """How the cache is known to be of the annotated network: "name" or "statement"; see the top of this module.

    Raises `ProvenanceError` for another network, and for a statement that is of other weights.
    """
    header = cache.header
    weights = str(header.identity.get("weights", ""))
    model, spec = str(header.identity.get("model", "")), str(header.provenance.get("spec", header.backbone))
    if stated and stated != weights:
        raise ProvenanceError(
            f"the weights stated to be those of {SPEC} are {stated[:16]}, and the cache of {header.backbone} comes "
            f"from {weights[:16] or 'unknown ones'}; state the fingerprint that `embedx show` tells of that cache"
        )
    if model == MODEL:
        return "name"
    if spec.startswith(("checkpoint:", "py:")) and header.dim == DIM:
        if stated:
            return "statement"
        raise ProvenanceError(
            f"{header.backbone} comes from a file of weights without a history, and the votes are on the features of "
            f"{SPEC} ({weights}): extract with that backbone, or, when the file is that network, state this fingerprint"
        )
    sibling = ", a sibling of the same norm and radius" if model == "resnet50/salman-l2-eps3" else ""
    raise ProvenanceError(
        f"the votes are on the features of {SPEC}, and {header.backbone} is {spec}{sibling}: numbers of features mean "
        f"nothing in another network; extract with {SPEC}"
    )


def recognised(annotations: Sequence[Annotation], importance: np.ndarray) -> float:
    """Share of the annotated features that are among the most important ones of their class.

    importance  (k, d): mean activation times weight, by class and feature; NaN in a class without rows

    A class with a annotated features looks among its 4 a most important ones: in the annotated network nearly all are
    there, in another 4 a / d of them. Raises `ProvenanceError` below one half.
    """
    of: dict[int, list[int]] = {}
    for a in annotations:
        if a.feature is not None and np.isfinite(importance[a.class_index]).all():
            of.setdefault(a.class_index, []).append(a.feature)
    if not of:
        raise SpuriosityError("no annotated class has rows to recognise the network by; use the training images")
    there = [np.isin(f, np.argsort(-importance[c], kind="stable")[: WITHIN * len(f)]) for c, f in of.items()]
    share = float(np.concatenate(there).mean())
    if share < SHARE:
        raise ProvenanceError(
            f"{share:.0%} of the annotated features are among the {WITHIN} times as many that matter most to "
            f"their classes here, and nearly all would be in {SPEC}: this is another network; extract with that one"
        )
    return share


def _codes(path: Path, manifest: Manifest, synsets: set[str], notice: Callable[[str], None] | None) -> dict[str, int]:
    """Code of every synset that both have. A dataset may have a part of the classes, or the table; not each another."""
    codes = {name.partition(" ")[0]: code for code, name in enumerate(manifest.classes)}
    codes = {synset: code for synset, code in codes.items() if SYNSET.fullmatch(synset)}
    foreign, silent = sorted(synsets - codes.keys()), sorted(codes.keys() - synsets)
    if not codes or len(foreign) == len(synsets) or (foreign and silent):
        example = (
            f"{silent[0]} of {manifest.name} is not in the table"
            if codes and silent
            else (f"{manifest.name} has classes like {manifest.classes[0]!r}")
        )
        raise SpuriosityError(
            f"{path}: {len(foreign):,} of {len(synsets):,} classes are not in {manifest.name} (for example "
            f"{foreign[0] if foreign else 'none'}), and {example}; expected synsets of ImageNet, or a part of them"
        )
    if foreign and notice is not None:
        notice(f"note: {path}: votes on {len(foreign):,} classes that {manifest.name} does not have are left out")
    return codes
