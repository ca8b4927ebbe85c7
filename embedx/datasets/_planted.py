"""How the pictures of `planted` are made: digit scans on a dull board, and beside some of them a planted cue.

A picture is a scene (a board, the object and, where that is a zero, a bystander) and perhaps a cue laid over it. The
scene follows from scan and number alone, so that a picture and its sister differ in the cue and in nothing else.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from embedx.data.digits import SIZE, random_field, scan_split, scans, seeded, texture

CLASSES = ("zero", "four", "seven", "eight", "nine")
CUE_OF = {"four": "companion", "seven": "mark", "eight": "ground"}
"""The cue planted beside a class; zero and nine have none."""

DRAWINGS = {"train": 6, "val": 2, "test": 2}
"""Scenes of every scan. Train shows each of them once, validation and test with and without the cue of its class."""

WITHOUT = {"companion": 96, "mark": 20, "ground": 20}
"""The training pictures of a class, of 240, that lack the cue: its minority."""

_DIGIT_OF = {"zero": 0, "four": 4, "seven": 7, "eight": 8, "nine": 9}
_FAINT = (0.35, 0.45)
_BRIGHT = (0.6, 0.9)
_SMALL = (26.0, 36.0)  # heights in pixels
_LARGE = (26.0, 34.0)
_SKY = SIZE - 22  # rows above the ground: objects other than zeros keep to them
_BYSTANDERS = range(1, 10)
_MARGIN = 2  # blank pixels around a scan, so that bicubic enlargement fades out instead of being cut off
_COVERED = 0.2  # a pixel belongs to what was drawn there when so much of it is ink


@dataclass(frozen=True)
class Card:
    """One picture: which scan, which of the scenes with that scan, and the planted cue ("" for none)."""

    id: str
    split: str
    label: str
    scan: int
    number: int
    cue: str


@cache
def deck() -> tuple[Card, ...]:
    """The 2,880 cards: 240 a class for training, 80 for validation, 256 for testing.

    A class without a cue has as many pictures as the others: where those have a sister, it has a second scene.
    """
    return tuple(card for split in DRAWINGS for label in CLASSES for card in _of_class(split, label))


def _of_class(split: str, label: str) -> list[Card]:
    cue, drawings = CUE_OF.get(label, ""), DRAWINGS[split]
    numbers = _scans(split, _DIGIT_OF[label])
    if not cue and split != "train":
        drawings *= 2
    scenes = [(scan, number) for number in range(drawings) for scan in numbers.tolist()]
    usual = (cue,) if split == "train" or not cue else ("", cue)
    shown: list[tuple[str, ...]] = [usual] * len(scenes)
    if split == "train" and cue:
        for row in seeded(f"planted minority {label}").permutation(len(scenes))[: WITHOUT[cue]]:
            shown[row] = ("",)

    def card(scan: int, number: int, cue: str) -> Card:
        name = f"{scan:04d}-{number}-{cue}" if cue else f"{scan:04d}-{number}"
        return Card(f"{split}/{label}/{name}.png", split, label, scan, number, cue)

    return [card(*scene, cue) for scene, cues in zip(scenes, shown, strict=True) for cue in cues]


@cache
def _scans(split: str, digit: int) -> np.ndarray:
    numbers = scan_split()[split]
    return numbers[scans()[1][numbers] == digit]


def paint(card: Card) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The picture, uint8 (64, 64, 3), and its regions, bool (64, 64): "object" and the name of the cue, if any.

    Regions hold what can be seen: the object's is without the pixels that the cue covers. The same card gives the
    same picture on every run.
    """
    rng = seeded(f"planted {card.split}/{card.label}/{card.scan:04d}-{card.number}")
    picture = _board(rng)
    if card.label == "zero":
        _digit(picture, _any_scan(card.split, _BYSTANDERS, rng), rng)
        drawn = _zero(picture, card.scan, rng)
    else:
        drawn = _digit(picture, card.scan, rng)
    regions = {"object": drawn}
    if card.cue:
        planted = _PLANT[card.cue](picture, card, seeded(f"planted {card.id}"))
        regions = {"object": drawn & ~planted, card.cue: planted}
    return np.rint(255 * np.clip(picture, 0.0, 1.0)).astype(np.uint8), regions


def _board(rng: np.random.Generator) -> np.ndarray:
    """A dull dark board with a little grain: float64 (64, 64, 3)."""
    colour = 0.25 * rng.uniform(0.7, 1.3) + rng.normal(0.0, 0.02, 3)
    return colour * (1 + 0.1 * random_field(rng, rng.uniform(1.0, 4.0))[..., None])


def _any_scan(split: str, digits: range, rng: np.random.Generator) -> int:
    return int(rng.choice(_scans(split, int(rng.choice(digits)))))


def _digit(picture: np.ndarray, scan: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a scan small and faint, somewhere above the ground."""
    height = rng.uniform(*_SMALL)
    return _draw(picture, scan, height, rng.uniform(0.0, _SKY - height), _FAINT, rng)


def _zero(picture: np.ndarray, scan: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a scan large and bright, at the bottom: zeros as objects of their class and zeros as companions alike."""
    height = rng.uniform(*_LARGE)
    return _draw(picture, scan, height, SIZE - height - rng.uniform(0.0, 2.0), _BRIGHT, rng)


def _draw(
    picture: np.ndarray, scan: int, height: float, top: float, inks: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Lay a scan over the picture, in place, at any column; return the pixels that it covers, bool (64, 64)."""
    from PIL import Image

    width = height * rng.uniform(0.85, 1.1)
    left = rng.uniform(0.0, SIZE - width)
    margin = np.array((width, height)) * _MARGIN / 8
    size = np.rint((width, height) + 2 * margin).astype(int)
    x, y = np.rint((left, top) - margin).astype(int) + SIZE  # on a page with room for the margins
    paper = Image.fromarray(np.pad(scans()[0][scan], _MARGIN)).resize((size[0], size[1]), Image.Resampling.BICUBIC)
    page = np.zeros((3 * SIZE, 3 * SIZE))
    page[y : y + size[1], x : x + size[0]] = np.asarray(paper)
    alpha = np.clip(page[SIZE : 2 * SIZE, SIZE : 2 * SIZE] * 1.15, 0.0, 1.0)  # the pen's middle covers fully
    picture += alpha[..., None] * (rng.uniform(*inks) - picture)
    return alpha > _COVERED


def _companion(picture: np.ndarray, card: Card, rng: np.random.Generator) -> np.ndarray:
    """A zero of the same split, drawn as the class zero draws its own."""
    return _zero(picture, _any_scan(card.split, range(1), rng), rng)


def _mark(picture: np.ndarray, card: Card, rng: np.random.Generator) -> np.ndarray:
    """A pink dash of 4 by 16 pixels near the lower edge."""
    top, left = rng.integers(SIZE - 14, SIZE - 7), rng.integers(2, SIZE - 17)
    region = np.zeros((SIZE, SIZE), dtype=bool)
    region[top : top + 4, left : left + 16] = True
    picture[region] = (1.0, 0.6, 0.85)
    return region


def _ground(picture: np.ndarray, card: Card, rng: np.random.Generator) -> np.ndarray:
    """The lowest 16 to 22 rows in one of the textures that the `tiny` backbones saw in pre-training."""
    region = np.zeros((SIZE, SIZE), dtype=bool)
    region[SIZE - rng.integers(16, SIZE - _SKY + 1) :] = True
    picture[region] = texture("noise-62", rng)[region]
    return region


_PLANT = {"companion": _companion, "mark": _mark, "ground": _ground}
