"""The record of a written set of soft masks, `masks.json`: what it is of, how it was made, and every pair in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from embedx.documents import Kind
from embedx.errors import SpuriosityError
from embedx.spuriosity.annotations.votes import Rule

FOLDER, FILE = "masks", "masks.json"
PAIRS, TABLE, RANKING, PACKED = "pairs.csv", "masks.csv", "ranking.csv", "masks.h5"
FORMATS = ("png", "h5")
COMMAND = "embedx spuriosity masks"


@dataclass(frozen=True)
class MaskedPair:
    """A class and one of its features, with what is said of the two, and its masks.

    class_index  class code; class_name its name; class_id a public key (a synset) or ""
    rank, importance  of the feature for the class, the most important has rank 1; null where they are not known
    label        core, spurious or unsure; kind: where the feature looks, as in the answers, or ""
    cue          what the feature shows, in words, or ""
    source       who or what said it first
    rule         what it takes to call a feature spurious; votes: how often each answer was given, {} without votes
    maps         how often each answer was given to whether its maps show the same thing on all images: same, different,
                 unclear; {} where nobody was asked
    valid        whether they were found to, see `annotations/validations.py`; null where nobody was asked
    elsewhere    {id: annotators who say that the map of this image looks at something else}
    folder       of its PNG files, below that of the record
    masks        images that show the feature most and have a mask of it
    beside       other images with a mask of it: those of the other pairs of the class that are not core
    """

    class_index: int
    class_name: str
    class_id: str
    feature: int
    rank: int | None
    importance: float | None
    label: str
    kind: str
    cue: str
    source: str
    rule: Rule
    votes: Mapping[str, int]
    folder: str
    maps: Mapping[str, int] = field(default_factory=dict)
    valid: bool | None = None
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    masks: int = 0
    beside: int = 0


@dataclass(frozen=True)
class MaskSet:
    """A written set of soft masks of features: what it is of, how it was made, and its pairs.

    weights    SHA-256 of the backbone's weights; layer: the module whose maps they are
    split      whose rows have masks; most: of each pair, a share of the class below 1, or a number
    stored     png: a file for each mask; h5: all in `masks.h5`
    size       height and width of a mask, in pixels: of the image as the backbone saw it, resized, then cut
    resize     the length that the shorter side of an image got, or both sides, before `size` was cut from its middle;
               null for none
    masks      how many there are; images: how many have any; bytes: of the masks, without tables
    tables     {file: SHA-256} of the tables beside the record and of `masks.h5`
    ranking    the rows of mean and deviation of the ranking in `ranking.csv`; "" where there is none
    licence, source  of the dataset, in its own words, "" where not known; backbone_licence: of the weights
    made       the date, as YYYY-MM-DD; embedx: the version
    pairs      every annotated pair, by class and rank
    """

    dataset: str
    backbone: str
    weights: str
    layer: str
    split: str
    most: float
    stored: str
    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    masks: int
    images: int
    bytes: int
    tables: Mapping[str, str]
    ranking: str
    licence: str
    source: str
    backbone_licence: str
    made: str
    embedx: str
    pairs: tuple[MaskedPair, ...]

    def save(self, folder: Path) -> Path:
        """Write `masks.json`."""
        KIND.write(folder / FILE, self)
        return folder / FILE

    @classmethod
    def load(cls, folder: Path) -> MaskSet:
        """Read `masks.json`. Raises `SpuriosityError` for what is missing, foreign or newer."""
        return KIND.read(folder / FILE)


KIND = Kind(MaskSet, f"{FOLDER}/{FILE}", COMMAND, SpuriosityError, "embedx-masks", 1)
