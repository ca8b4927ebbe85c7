"""Gold items: pairs whose answer is known beforehand, by which annotators are measured."""

from __future__ import annotations

from pathlib import Path

from embedx.errors import SpuriosityError
from embedx.spuriosity import annotations
from embedx.spuriosity.annotations.votes import misnamed
from embedx.spuriosity.records.discovery import Discovery


def gold_answers(file: Path, folder: Path) -> dict[tuple[int, int], str]:
    """{(class, feature): core or spurious} of the annotations in a file, those of the discovery in `folder`.

    Raises `SpuriosityError` where none fits, and as `annotations.read` and `annotations.check` do.
    """
    discovery = Discovery.load(folder)
    entries = annotations.read(file)
    annotations.check(entries, discovery.weights)
    for a in entries:
        if problem := misnamed(a.class_index, a.class_name, discovery.classes):
            raise SpuriosityError(f"{file}: {problem}; expected annotations of {discovery.dataset}")
    pairs = {(c.label, c.feature) for c in discovery.candidates}
    known = {(a.class_index, a.feature): a.label for a in entries if a.feature is not None and a.label != "unsure"}
    found = {pair: label for pair, label in known.items() if pair in pairs}
    if not found:
        raise SpuriosityError(
            f"{file} says core or spurious of none of the {len(pairs):,} features in {folder}; expected annotations of "
            "some of them"
        )
    return found
