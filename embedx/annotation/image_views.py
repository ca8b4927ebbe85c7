"""What the pages of images hold: the queue of the review, and the images that group labels are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedx.annotation.images import Book, Decision, GroupLabel
from embedx.data.manifest import SPLITS, Manifest
from embedx.spuriosity.records.flags import Flag

PAGE = 30
"""Images on one page."""
CHOICES = {
    "extremes": "of validation, from both ends of the ranking",
    "least-sure": "of validation, of which the head is least sure",
    "drawn": "drawn from test, to report on",
}
"""Which images a group label is asked for; what fits and chooses is picked, what reports is drawn."""
MOST = 200
"""Images that may be asked for at once, and values of an attribute as they are typed."""


@dataclass(frozen=True)
class Picture:
    """Where a picture is, what it is called, and what stands below it."""

    address: str
    name: str
    caption: str


@dataclass(frozen=True)
class Item:
    """One image to answer on: its key in what is posted, what is known of it, and the annotator's answer."""

    key: dict[str, Any]
    title: str
    facts: tuple[tuple[str, str], ...]
    pictures: tuple[Picture, ...]
    answer: str
    right: str = ""
    note: str = ""
    seconds: float = 0.0
    others: tuple[str, ...] = ()


def review(
    flags: Sequence[Flag], book: Book[Decision], manifest: Manifest | None, annotator: str, page: int, *, blind: bool
) -> dict[str, Any]:
    """A page of the queue. manifest: of the dataset where its images are at hand, for those that were not drawn."""
    pages = max(1, -(-len(flags) // PAGE))
    page = min(page, pages)
    done = sum(book.mine(f.id, annotator) is not None for f in flags)
    items = [_flagged(f, book, manifest, annotator, blind=blind) for f in flags[(page - 1) * PAGE : page * PAGE]]
    return {"items": items, "page": page, "pages": pages, "done": done, "n": len(flags)}


def _flagged(flag: Flag, book: Book[Decision], manifest: Manifest | None, annotator: str, *, blind: bool) -> Item:
    mine = book.mine(flag.id, annotator)
    pictures = []
    if flag.image:
        pictures.append(Picture(f"/flagged/{flag.place}/image", "image", flag.split))
    elif manifest is not None and (row := row_of(manifest, flag.id)) is not None:
        pictures.append(Picture(f"/row/{row}", "image", flag.split))
    if flag.crop:
        pictures.append(Picture(f"/flagged/{flag.place}/crop", "cropped to the core features", flag.core_predicted))
    told = () if blind else tuple(
        f"{d.annotator}: {d.answer}{f', right: {d.right}' if d.right else ''}" for d in book.of(flag.id)
        if d.annotator != annotator
    )  # fmt: skip
    facts = (
        ("label", f"{flag.class_name} ({100 * flag.label_probability:.0f} %)"),
        ("taken for", f"{flag.predicted_name} ({100 * flag.probability:.0f} %)"), ("listed for", flag.reason),
    )  # fmt: skip
    return Item(
        {"id": flag.id, "class_name": flag.class_name}, flag.id, facts, tuple(pictures), mine.answer if mine else "",
        mine.right if mine else "", mine.note if mine else "", float(mine.seconds or 0) if mine else 0.0, told,
    )  # fmt: skip


@dataclass(frozen=True)
class GroupsAsked:
    """Which group labels are wanted: the attribute, its values, which images, and how many of them."""

    attribute: str = ""
    values: tuple[str, ...] = ()
    by: str = "extremes"
    n: int = 50

    @classmethod
    def of(cls, values: dict[str, str]) -> GroupsAsked:
        """As an address gives it; what it cannot be counts as not given."""
        words = tuple(dict.fromkeys(w for w in (v.strip() for v in values.get("values", "")[:500].split(",")) if w))
        n = values.get("n", "")
        return cls(
            values.get("attribute", "").strip()[:80], words[:9],
            values["by"] if values.get("by") in CHOICES else "extremes",
            min(MOST, max(1, int(n))) if n.isascii() and n.isdigit() and len(n) < 6 else 50,
        )  # fmt: skip


def groups(
    asked: GroupsAsked, rows: Sequence[int] | None, book: Book[GroupLabel], manifest: Manifest | None, annotator: str
) -> dict[str, Any]:
    """The images that a value of the attribute is asked for; rows: those found to decide most, None before that."""
    items = []
    wanted = (rows or ())[: asked.n] if asked.attribute and len(asked.values) > 1 else ()
    for row in wanted if manifest is not None else ():
        assert manifest is not None
        row_id = str(manifest.ids[row])
        mine = book.mine((asked.attribute, row_id), annotator)
        items.append(Item(
            {"id": row_id}, row_id, (("label", manifest.classes[manifest.labels[row]]),),
            (Picture(f"/row/{row}", "image", SPLITS[manifest.splits[row]]),), mine.value if mine else "",
            seconds=float(mine.seconds or 0) if mine else 0.0,
        ))  # fmt: skip
    return {
        "items": items,
        "groups": asked,
        "choices": CHOICES,
        "found": rows is not None,
        "done": sum(bool(i.answer) for i in items),
    }


def row_of(manifest: Manifest, row_id: str) -> int | None:
    """The row of an image; None where there is none."""
    at = int(np.searchsorted(manifest.ids, row_id))
    return at if at < len(manifest) and manifest.ids[at] == row_id else None
