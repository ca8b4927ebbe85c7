"""Planted cues are where the masks say, and a plain head on the broad tiny backbone leans on them as described."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from embedx.data.digits import scan_split, scans
from embedx.data.manifest import SPLITS
from embedx.data.prepare import prepare, source_of
from embedx.datasets import planted
from embedx.datasets._planted import CLASSES, CUE_OF, WITHOUT, Card, deck, paint
from embedx.errors import ManifestError
from embedx.extractors import tiny
from embedx.probes.low_spuriosity import LowSpuriosity
from embedx.probes.plain import Plain
from embedx.workspace import Workspace

DRIVEN = 0.9  # AUROC from which a feature counts as driven by a cue
CUED = sorted(CUE_OF)


def sister(card: Card) -> str:
    return card.id.replace(f"-{card.cue}", "") if card.cue else card.id


def test_scans_are_shared_by_no_two_splits():
    used = {s: {c.scan for c in deck() if c.split == s} for s in SPLITS} | {"pretrain": set(scan_split()["pretrain"])}
    assert sum(map(len, used.values())) == len(set().union(*used.values()))
    digit = dict(zip(CLASSES, (0, 4, 7, 8, 9), strict=True))
    assert all(scans()[1][c.scan] == digit[c.label] for c in deck())


def test_counts_are_as_described():
    manifest = planted.read(Path("/x"))
    assert len(manifest) == 2880
    assert manifest.differences() == []
    counts = manifest.counts()
    assert set(manifest.expected) == set(counts)
    assert {g: counts[f"train/{g}"] for g in manifest.group_names} == {
        "zero/without": 240, "zero/with": 0, "four/without": 96, "four/with": 144, "seven/without": 20,
        "seven/with": 220, "eight/without": 20, "eight/with": 220, "nine/without": 240, "nine/with": 0,
    }  # fmt: skip
    assert all(counts[f"{s}/{label}/{w}"] == n for s, n in (("val", 40), ("test", 128)) for label in CUED
               for w in planted.ABSENT_OR_PRESENT)  # fmt: skip
    for cue in CUE_OF.values():
        here = manifest.codes[cue] == 1
        assert set(np.take(CLASSES, manifest.labels[here])) == {k for k, v in CUE_OF.items() if v == cue}
    assert np.array_equal(manifest.codes["cue"], sum(manifest.codes[cue] for cue in CUE_OF.values()))


def test_sisters_differ_only_where_the_cue_is():
    cards = {c.id: c for c in deck()}
    pairs = [(c, cards[sister(c)]) for c in deck() if c.cue and c.split != "train"]
    assert len(pairs) == 3 * (40 + 128)
    for card, other in pairs[::19]:
        (picture, regions), (bare, alone) = paint(card), paint(other)
        change, region = np.abs(picture.astype(int) - bare).max(axis=2), regions[card.cue]
        assert set(regions) == {"object", card.cue}
        assert set(alone) == {"object"}
        # The rim of a companion's ink fades out, and is not its own where less than a fifth of a pixel is ink.
        assert change[~region].max() <= (255 / 5 + 1 if card.cue == "companion" else 0)
        assert (change[region] > 0).mean() > 0.95
        assert np.array_equal(regions["object"], alone["object"] & ~region)
        assert regions["object"].sum() > 40


@pytest.fixture
def few(monkeypatch):
    """A set of few cards, and the list of those that were drawn."""
    cards, drawn = deck()[::131], []
    monkeypatch.setattr(planted, "deck", lambda: cards)
    monkeypatch.setattr(planted, "paint", lambda card: (drawn.append(card.id), paint(card))[1])
    return cards, drawn


def test_images_and_masks_are_drawn_once_and_read_back(tmp_path, few):
    cards, drawn = few
    planted.make(tmp_path)
    assert sorted(drawn) == sorted(c.id for c in cards)
    assert any(c.cue for c in cards)
    for card in cards:
        picture, regions = paint(card)
        assert np.array_equal(np.asarray(Image.open(tmp_path / card.id)), picture)
        found = planted.masks(tmp_path, card.id)
        assert set(found) == {"object", card.cue} - {""}
        assert all(np.array_equal(found[name], regions[name]) for name in regions)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.*") if p.is_file()}
    lost = next(c for c in cards if c.cue)
    for gone in (lost.id, f"masks/{lost.id}/{lost.cue}.png"):
        drawn.clear()
        planted.make(tmp_path)
        assert drawn == []
        (tmp_path / gone).unlink()
        planted.make(tmp_path)
        assert drawn == [lost.id]
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.*") if p.is_file()} == before
    (tmp_path / "recipe.txt").write_text("0")
    drawn.clear()
    planted.make(tmp_path)
    assert len(drawn) == len(cards)


def test_prepared_by_name_alone_and_an_unknown_id_is_refused(tmp_path, few):
    workspace = Workspace(tmp_path)
    manifest, _ = prepare(workspace, "planted", None, {})
    root = workspace.dataset("planted") / "images"
    assert source_of(workspace, manifest).read(manifest.ids[0]) == (root / manifest.ids[0]).read_bytes()
    with pytest.raises(ManifestError, match=r"holds no object.png; expected an id of the dataset planted"):
        planted.masks(root, "test/seven/none.png")


@dataclass(frozen=True)
class Seen:
    """All cards as `tiny:broad` sees them, and the plain head, its strength chosen on validation.

    maps (n, 128, 4, 4) last activations; X (n, 128) their means; y labels; cue whether the class's cue is there.
    """

    maps: np.ndarray
    X: np.ndarray
    y: np.ndarray
    cue: np.ndarray
    split: np.ndarray
    regions: tuple[dict[str, np.ndarray], ...]

    @cached_property
    def head(self) -> Plain:
        heads = Plain().path(self.X[self.split == 0], self.y[self.split == 0])
        return max(heads, key=lambda h: h.score(self.X[self.split == 1], self.y[self.split == 1]))

    def rows(self, label: str, split: str = "train") -> np.ndarray:
        return np.flatnonzero((self.y == CLASSES.index(label)) & (self.split == SPLITS.index(split)))

    def top(self, label: str, k: int) -> np.ndarray:
        """The k features of largest importance."""
        importance = self.X[self.rows(label)].mean(0) * self.head.folded()[0][CLASSES.index(label)]
        return np.argsort(-importance, kind="stable")[:k]

    def auroc(self, label: str, values: np.ndarray) -> float:
        """How well values of the training rows of a class tell those with the cue from those without."""
        return float(roc_auc_score(self.cue[self.rows(label)], values))

    def driven(self, label: str, k: int) -> list[int]:
        rows = self.rows(label)
        return [int(i) for i in self.top(label, k) if self.auroc(label, self.X[rows, i]) > DRIVEN]

    def spuriosity(self, label: str, rows: np.ndarray, k: int) -> np.ndarray:
        S, train = self.driven(label, k), self.rows(label)
        return ((self.X[rows][:, S] - self.X[train][:, S].mean(0)) / self.X[train][:, S].std(0)).mean(1)

    def accuracy(self, predicted: np.ndarray, label: str, split: str) -> tuple[float, float]:
        """On rows of a class with its cue and without."""
        rows = self.rows(label, split)
        right = predicted[rows] == self.y[rows]
        return float(right[self.cue[rows]].mean()), float(right[~self.cue[rows]].mean())

    def gap(self, predicted: np.ndarray, label: str, split: str = "test") -> float:
        with_cue, without = self.accuracy(predicted, label, split)
        return with_cue - without


@pytest.fixture(scope="module")
def seen() -> Seen:
    cards = deck()
    drawn = [paint(card) for card in cards]
    network = tiny.load("broad").module
    pixels = torch.from_numpy(np.stack([picture for picture, _ in drawn])).movedim(3, 1)
    with torch.inference_mode():
        maps = torch.cat([network.blocks((part / 255 - 0.5) / 0.25) for part in pixels.split(192)])
    return Seen(
        maps.numpy(), maps.mean((2, 3)).numpy(), np.array([CLASSES.index(c.label) for c in cards]),
        np.array([bool(c.cue) for c in cards]), np.array([SPLITS.index(c.split) for c in cards]),
        tuple(regions for _, regions in drawn),
    )  # fmt: skip


@pytest.mark.parametrize("label", CUED)
def test_a_feature_of_the_cue_is_among_the_most_important(seen, label):
    train = seen.rows(label)
    assert max(seen.auroc(label, seen.X[train, i]) for i in seen.top(label, 5)) > 0.95
    assert max(seen.auroc(label, seen.X[train, i]) for i in seen.top(label, 10)) > 0.98


@pytest.mark.parametrize("k", [5, 10])
@pytest.mark.parametrize("label", CUED)
def test_ranking_recovers_the_minority(seen, label, k):
    assert seen.auroc(label, seen.spuriosity(label, seen.rows(label), k)) >= 0.95
    assert np.count_nonzero(~seen.cue[seen.rows(label)]) == WITHOUT[CUE_OF[label]]


@pytest.mark.parametrize("label", CUED)
def test_activation_lies_on_the_cue(seen, label):
    rows = [r for r in seen.rows(label) if seen.cue[r]]
    cells = np.stack([seen.regions[r][CUE_OF[label]].reshape(4, 16, 4, 16).mean((1, 3)) for r in rows])
    maps = seen.maps[np.ix_(rows, seen.driven(label, 10))]
    share = (maps * cells[:, None]).sum((2, 3)) / np.maximum(maps.sum((2, 3)), 1e-9)
    assert (share.mean(0) > 1.4 * cells.mean()).all()
    assert share.mean(0).max() > 2.5 * cells.mean()


def test_the_head_leans_on_cues_and_the_collision_turns_the_gap_around(seen):
    predicted = seen.head.predict(seen.X)
    assert seen.gap(predicted, "seven") > 0.15
    assert seen.gap(predicted, "eight") > 0.15
    assert seen.gap(predicted, "four") < -0.3
    rows = [r for r in seen.rows("four", "test") if seen.cue[r] and predicted[r] != seen.y[r]]
    assert np.mean(predicted[rows] == CLASSES.index("zero")) > 0.95
    nines = seen.rows("nine", "test")
    assert np.mean(predicted[nines] == seen.y[nines]) > 0.9


def test_tuning_on_low_spuriosity_closes_the_gap_and_random_tuning_does_not(seen):
    train = np.flatnonzero(seen.split == 0)
    spuriosity = np.full(len(seen.y), np.nan)
    for label in ("seven", "eight"):
        spuriosity[seen.rows(label)] = seen.spuriosity(label, seen.rows(label), 10)
    strengths = [{"C": C} for C in (1e-4, 1e-3, 1e-2, 1e-1)]
    before = np.mean([seen.gap(seen.head.predict(seen.X), c) for c in ("seven", "eight")])
    gaps = {}
    for rows in ("lowest", "random"):
        tuned = LowSpuriosity(k=20, rows=rows, start=seen.head.folded(), random_state=0)
        heads = tuned.path(seen.X[train], seen.y[train], strengths, spuriosity=spuriosity[train])
        found = [[np.mean([seen.gap(h.predict(seen.X), c, s) for c in ("seven", "eight")]) for s in ("val", "test")]
                 for h in heads]  # fmt: skip
        gaps[rows] = min(found)[1]  # the head of the smallest gap on validation, judged on test
    assert before > 0.2
    assert gaps["lowest"] < 0.12
    assert gaps["random"] > 0.9 * before
