"""A copy of a dataset with what people said of its images: corrected labels, or an attribute that they named.

The dataset itself stays as it is. The copy is a dataset of its own in the cache folder: its manifest, and the same
feature caches under a second name, as labels never enter those. Its images are read where they lie.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from embedx.annotation.images import ANSWERS, UNKNOWN, Book, Decision, GroupLabel, books
from embedx.annotation.work import Note, Place, Tell
from embedx.data import manifest as manifests
from embedx.data.manifest import MEMBERS, SPLITS, Manifest
from embedx.data.manifest.disk import KIND as FACTS
from embedx.errors import ManifestError, SpuriosityError
from embedx.files import landing, locked
from embedx.workspace import Workspace, slug


@dataclass(frozen=True)
class Copy:
    """A copy as it was written: its manifest, where it lies, and {what was done: rows}."""

    manifest: Manifest
    folder: Path
    rows: Mapping[str, int]


def corrected(manifest: Manifest, decisions: Book[Decision]) -> tuple[Manifest, dict[str, int]]:
    """The manifest with the decisions applied, and {what was done: rows}.

    A label error gets the class that was named as right; where none was, the row is left out. All else stays. A row on
    which as many people say one thing as another stays too. Raises `SpuriosityError` where nothing changes.
    """
    row_of = {str(i): row for row, i in enumerate(manifest.ids)}
    labels, keep, done = manifest.labels.copy(), np.ones(len(manifest), dtype=bool), Counter[str]()
    for item in decisions.items():
        decision = decisions.decided(item)
        row = row_of.get(item)
        if decision is None or row is None:
            done["undecided" if row is not None else "no row of the dataset"] += 1
        elif manifest.classes[manifest.labels[row]] != decision.class_name:
            done["relabelled since"] += 1  # by hand: it is not what was looked at
        elif decision.answer != ANSWERS[0]:
            done[decision.answer] += 1
        elif decision.right in manifest.classes:
            labels[row] = manifest.classes.index(decision.right)
            done["label corrected"] += 1
        else:
            keep[row] = False
            done["left out"] += 1
    if not done["label corrected"] and not done["left out"]:
        raise SpuriosityError(
            f"{decisions.path} has no label error that is decided, so that the copy would be the same; answer first"
        )
    labels.setflags(write=False)
    return _taken(replace(manifest, labels=labels), keep), dict(done)


def grouped(manifest: Manifest, labels: Book[GroupLabel], attribute: str) -> tuple[Manifest, dict[str, int]]:
    """The manifest with an attribute that people named, which alone forms the groups; and {value: rows}.

    Validation rows without a value are left out, as methods that use group labels take them from there; rows of the
    other splits without one are `UNKNOWN`. Raises `SpuriosityError` where nobody gave the attribute a value, or it
    is one of the dataset's own.
    """
    row_of = {str(i): row for row, i in enumerate(manifest.ids)}
    found = {row_of[i]: d.value for a, i in labels.items()
             if a == attribute and i in row_of and (d := labels.decided((a, i)))}  # fmt: skip
    if not found:
        raise SpuriosityError(f"{labels.path} has no value of {attribute!r} that is decided; answer first")
    if attribute in manifest.codes or attribute in manifests.RESERVED:
        raise SpuriosityError(f"{manifest.name} has an attribute {attribute!r} already; give yours another name")
    words = [found.get(row, UNKNOWN) for row in range(len(manifest))]
    keep = (manifest.splits != SPLITS.index("val")) | np.array([w != UNKNOWN for w in words])
    values = (
        *sorted(set(found.values())),
        *[UNKNOWN] * (UNKNOWN in {w for w, k in zip(words, keep, strict=True) if k}),
    )
    codes = np.array([values.index(w) if w in values else 0 for w in words], dtype=np.int64)
    codes.setflags(write=False)
    with_it = replace(
        manifest, codes={**manifest.codes, attribute: codes}, values={**manifest.values, attribute: values},
        grouping=(attribute,), expected={},
    )  # fmt: skip
    return _taken(with_it, keep), dict(Counter(found.values()))


def _taken(manifest: Manifest, keep: np.ndarray) -> Manifest:
    """Some rows of a manifest."""

    def some(column: np.ndarray) -> np.ndarray:
        part = column[keep]
        part.setflags(write=False)
        return part

    subjects = manifest.subjects
    return replace(
        manifest, ids=some(manifest.ids), labels=some(manifest.labels), splits=some(manifest.splits),
        codes={a: some(c) for a, c in manifest.codes.items()}, expected={}, origin=None,
        subjects=subjects and replace(subjects, codes=some(subjects.codes)),
    )  # fmt: skip


def write(workspace: Workspace, original: Manifest, copy: Manifest, name: str, rows: Mapping[str, int]) -> Copy:
    """Write a manifest as the dataset `name`, with the caches of the original; one written before is replaced.

    Raises `ManifestError` for the name of another dataset, the copy with another attribute among them, and for what
    would be no dataset; then nothing is written.
    """
    source, folder = workspace.dataset(original.name), workspace.dataset(name)
    named = [repr(a) for a in copy.codes if a not in original.codes]
    mark = f"a copy of {original.name} with {f'the attribute {named[0]}' if named else 'corrected labels'}"
    if slug(name) == slug(original.name) or (slug(name) in workspace.datasets() and not _ours(folder, mark)):
        advice = "give the attribute another name" if named else f"move {folder} away"
        raise ManifestError(f"a dataset {slug(name)!r} is there already, and is not {mark}; {advice}")
    root = original.root or str((source / "images").resolve())
    made = replace(copy, name=slug(name), root=root, source=original.source, version=mark)
    if (source / MEMBERS).is_file():
        members = np.load(source / MEMBERS, allow_pickle=False)
        made = replace(made, members=members[np.isin(members["id"], [str(i).encode() for i in made.ids])])
    _check(made, mark)
    folder.mkdir(parents=True, exist_ok=True)
    with manifests.alone(folder):
        manifests.save(made, folder)
    for cache in sorted(source.glob("*.h5")):
        with locked(folder / cache.name):
            _link(cache, folder / cache.name)
    return Copy(made, folder, dict(rows))


def corrected_name(dataset: str) -> str:
    """What a copy with corrected labels is called."""
    return f"{slug(dataset)}-reviewed"


def grouped_name(dataset: str, attribute: str) -> str:
    """What a copy with an attribute is called."""
    return f"{slug(dataset)}-by-{slug(attribute)}"


def write_corrected(place: Place, about: object, tell: Tell, note: Note) -> str:
    """Write the copy with corrected labels; returns what was done, in words."""
    analysis = place.open(note)
    decisions, _ = books(place.folder, analysis.manifest.name)
    copy, rows = corrected(analysis.manifest, decisions)
    name = corrected_name(analysis.manifest.name)
    written = write(analysis.workspace, analysis.manifest, copy, name, rows)
    return _told(written, f"embedx compare {name} -b {analysis.backbone}")


def write_grouped(place: Place, about: object, tell: Tell, note: Note) -> str:
    """Write the copy with the attribute `about`; returns what was done, in words."""
    analysis, attribute = place.open(note), str(about)
    _, labels = books(place.folder, analysis.manifest.name)
    copy, rows = grouped(analysis.manifest, labels, attribute)
    name = grouped_name(analysis.manifest.name, attribute)
    written = write(analysis.workspace, analysis.manifest, copy, name, rows)
    heads = "--head plain --head dfr --select-by average"  # validation has no row of the groups without a value
    return _told(written, f"embedx compare {name} -b {analysis.backbone} {heads}")


def _told(copy: Copy, use: str) -> str:
    rows = ", ".join(f"{what} {n:,}" for what, n in sorted(copy.rows.items()))
    return f"wrote {copy.folder}: {len(copy.manifest):,} rows ({rows}); {use} uses it"


def _check(made: Manifest, mark: str) -> None:
    """Refuse a manifest that could not be read again."""
    with TemporaryDirectory() as aside:
        try:
            manifests.save(made, Path(aside))
            manifests.read(Path(aside))
        except ManifestError as error:
            raise ManifestError(f"{mark} would be no dataset; mend the answers: {error}") from error


def _ours(folder: Path, mark: str) -> bool:
    """Whether a copy with this mark was written there, also where its table was damaged since."""
    try:
        return FACTS.read(folder / manifests.FACTS).version == mark
    except ManifestError:
        return False


def _link(file: Path, place: Path) -> None:
    """The same file under a second name, or where the disk cannot do that, a copy."""
    with landing(place, synced=False) as aside:
        aside.unlink()
        try:
            os.link(file, aside)
        except OSError:
            shutil.copyfile(file, aside)
