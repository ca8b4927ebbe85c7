"""The offline demo: real handwritten digit scans drawn over generated land and water.

The class to learn is whether a digit is low (0-4) or high (5-9). In the training cards the background by default nearly
gives the class away (low digits lie on land, high digits on water); the validation and test cards break
that link, every scan being drawn once over each background. Everything is computed from the 1,797 scans of
8 x 8 pixels that scikit-learn ships, with fixed seeds, so nothing is downloaded and every run draws the same.
"""

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np

SIZE = 64
BACKGROUNDS = ("land", "water")
CLASSES = ("low", "high")
TEXTURES: tuple[str, ...] = (*BACKGROUNDS, *(f"noise-{number:02d}" for number in range(64)))
"""Every kind that `texture` knows. The noise kinds serve pre-training only; no card uses them."""

_SCANS_PER_DIGIT = {"test": 64, "train": 40, "val": 20}
TRAINING = 5 * _SCANS_PER_DIGIT["train"]  # images of a class
AGAINST = 10
"""Training images of a class, of `TRAINING`, that by default lie over the other class's background."""
_MARGIN = 2  # blank pixels around a scan, so that bicubic enlargement fades out instead of being cut off


@dataclass(frozen=True)
class Card:
    """One image of the demo: which scan lies over which background. `paint` turns it into pixels."""

    id: str
    split: str
    scan: int
    digit: int
    label: str
    background: str


def seeded(text: str) -> np.random.Generator:
    """A generator seeded by text alone; Python's own hash() would differ from one process to the next."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))


@cache
def scans() -> tuple[np.ndarray, np.ndarray]:
    """Return the scans, float32 (1797, 8, 8), 0 for paper and 1 for ink, and their digits, int (1797,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)  # type: ignore[attr-defined]
    target = digits.target.astype(np.int64)  # type: ignore[attr-defined]
    images.setflags(write=False)
    target.setflags(write=False)
    return images, target


@cache
def scan_split() -> dict[str, np.ndarray]:
    """Return disjoint sorted scan numbers: test (640), train (400), val (200) and pretrain (the other 557).

    Every digit has the same number of scans in test, train and val: 64, 40 and 20.
    """
    digits = scans()[1]
    rng = seeded("scan split")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*_SCANS_PER_DIGIT, "pretrain")}
    for digit in range(10):
        rest = rng.permutation(np.flatnonzero(digits == digit))
        for name, count in _SCANS_PER_DIGIT.items():
            parts[name].append(rest[:count])
            rest = rest[count:]
        parts["pretrain"].append(rest)
    return {name: np.sort(np.concatenate(part)) for name, part in parts.items()}


@cache
def _frequencies() -> tuple[np.ndarray, np.ndarray]:
    down = np.fft.fftfreq(SIZE).astype(np.float32)[:, None]
    across = np.fft.rfftfreq(SIZE).astype(np.float32)[None, :]
    return down, across


def random_field(rng: np.random.Generator, scale: float, stretch: float = 1.0, angle: float = 0.0) -> np.ndarray:
    """Smoothed noise (64, 64) of mean 0 and deviation 1 that tiles without a seam.

    Its blotches are about `scale` pixels thick and `stretch` times as long, lying at `angle` from horizontal.
    """
    down, across = _frequencies()
    along = across * np.cos(angle) + down * np.sin(angle)
    over = down * np.cos(angle) - across * np.sin(angle)
    keep = np.exp(-2 * (np.pi * scale) ** 2 * ((stretch * along) ** 2 + over**2))
    keep[0, 0] = 0.0
    noise = rng.standard_normal((SIZE, SIZE), dtype=np.float32)
    field = np.fft.irfft2(np.fft.rfft2(noise) * keep, s=(SIZE, SIZE))
    return field / (field.std() + 1e-6)


def _shade(rng: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """The colour (3,) with a little of its hue and brightness changed."""
    return np.asarray(colour) * rng.uniform(0.8, 1.2) + rng.normal(0.0, 0.03, 3)


def _blend(weight: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return low + weight[..., None] * (high - low)


def _land(rng: np.random.Generator) -> np.ndarray:
    """Patches of grass and bare soil, with upright blades as grain."""
    patches = 1 / (1 + np.exp(-2.5 * (random_field(rng, rng.uniform(4, 8)) + rng.uniform(0.0, 0.8))))
    grain = random_field(rng, rng.uniform(0.5, 0.8), rng.uniform(2, 4), np.pi / 2 + rng.normal(0.0, 0.15))
    colour = _blend(patches, _shade(rng, (0.42, 0.30, 0.17)), _shade(rng, (0.22, 0.43, 0.14)))
    return colour * (1 + rng.uniform(0.12, 0.25) * grain[..., None])


def _water(rng: np.random.Generator) -> np.ndarray:
    """Level ripples over a slow swell, the crests catching the sky."""
    tilt = rng.normal(0.0, 0.06)
    swell = 1 / (1 + np.exp(-random_field(rng, rng.uniform(2, 4), rng.uniform(3, 5), tilt)))
    ripple = random_field(rng, rng.uniform(0.7, 1.3), rng.uniform(5, 9), tilt)
    colour = _blend(swell, _shade(rng, (0.07, 0.24, 0.46)), _shade(rng, (0.16, 0.42, 0.62)))
    crests = np.clip(ripple - 0.8, 0, 2) * rng.uniform(0.1, 0.25)
    return _blend(crests, colour * (1 + 0.08 * ripple[..., None]), np.array((0.75, 0.88, 0.95)))


def _noise(kind: str, rng: np.random.Generator) -> np.ndarray:
    """One sample of a noise kind: grain size, direction, contrast and colours follow from its name."""
    recipe = seeded(kind)
    scale, stretch, edge = np.exp(recipe.uniform(np.log((0.6, 1.0, 0.7)), np.log((6.0, 6.0, 6.0))))
    angle = recipe.uniform(0.0, np.pi)
    grain = recipe.uniform(0.0, 0.25)
    grain_scale = recipe.uniform(0.4, 1.2)
    first, second = recipe.uniform(0.05, 0.65, (2, 3))

    field = random_field(rng, scale * rng.uniform(0.8, 1.25), stretch * rng.uniform(0.8, 1.25), angle)
    weight = 1 / (1 + np.exp(-edge * (field + rng.normal(0.0, 0.2))))
    colour = _blend(weight, _shade(rng, first), _shade(rng, second))
    return colour * (1 + grain * random_field(rng, grain_scale)[..., None])


def texture(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Paint one sample of a kind named in `TEXTURES`: float32 (64, 64, 3) in 0..1, tiling without a seam.

    Samples of one kind differ in hue, brightness and scale; what makes the kind follows from its name alone.
    """
    if kind not in TEXTURES:
        raise ValueError(f"unknown texture {kind!r}; the kinds are {', '.join(TEXTURES)}")
    image = _land(rng) if kind == "land" else _water(rng) if kind == "water" else _noise(kind, rng)
    return np.clip(image, 0.0, 1.0).astype(np.float32)


def draw(scan: np.ndarray, background: np.ndarray, rng: np.random.Generator, tilt: float = 0.0) -> np.ndarray:
    """Lay a scan (8, 8) in light ink over a background (64, 64, 3): uint8 (64, 64, 3).

    Size, place and brightness of the digit are random. `tilt` bounds a random turn and slant, in radians: the
    cards leave it at nought, pre-training uses it to make more of its few scans.
    """
    from PIL import Image

    height = rng.uniform(36.0, 56.0)
    width = height * rng.uniform(0.85, 1.1)
    top, left = rng.uniform(0.0, 1.0, 2) * (SIZE - height, max(SIZE - width, 0.0))
    turn, slant = rng.uniform(-1.0, 1.0, 2) * tilt
    ink = rng.uniform(0.82, 1.0)

    # The map runs from a pixel of the result to a place in the scan, about the digit's own centre.
    scale = np.diag((8 / width, 8 / height))
    shape = scale @ np.array(((np.cos(turn), np.sin(turn) + slant), (-np.sin(turn), np.cos(turn))))
    shift = np.full(2, 4.0 + _MARGIN) - shape @ np.array((left + width / 2, top + height / 2))
    affine = (*shape[0], shift[0], *shape[1], shift[1])
    paper = Image.fromarray(np.pad(scan, _MARGIN))
    large = paper.transform((SIZE, SIZE), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    alpha = np.clip(np.asarray(large) * 1.15, 0.0, 1.0)[..., None]  # the pen's middle covers fully
    return np.rint(255 * (background + alpha * (ink - background))).astype(np.uint8)


@cache
def _cards(against: int, draw: int) -> tuple[Card, ...]:
    digits = scans()[1]
    rng = seeded("training backgrounds" if not draw else f"training backgrounds {draw}")
    cards: list[Card] = []

    def add(split: str, scan: int, background: str) -> None:
        digit = int(digits[scan])
        label = CLASSES[int(digit >= 5)]
        name = f"{split}/{label}/{scan:04d}-{background}.png"
        cards.append(Card(name, split, scan, digit, label, background))

    numbers = scan_split()["train"]
    shares = [against // 5 + (digit % 5 < against % 5) for digit in range(10)]  # as even as whole numbers are
    chosen = [rng.choice(numbers[digits[numbers] == d], n, replace=False) for d, n in enumerate(shares)]
    turned = np.concatenate(chosen)
    for scan in numbers.tolist():
        add("train", scan, BACKGROUNDS[int((digits[scan] >= 5) != (scan in turned))])
    for split in ("val", "test"):
        for scan in scan_split()[split].tolist():
            for background in BACKGROUNDS:
                add(split, scan, background)
    return tuple(cards)


def deck(against: int = AGAINST, draw: int = 0) -> list[Card]:
    """Return the demo's 2,080 cards: 400 for training, then 400 for validation, then 1,280 for testing.

    Training has one card per scan: in each class `against` over the other one's background (low on water, high on
    land), which the draw chooses, and the rest of 200 over the usual one. Validation and test draw every scan over
    both, so their groups are equal.
    """
    return list(_cards(against, draw))


def paint(card: Card) -> np.ndarray:
    """Draw a card: uint8 (64, 64, 3), the same for the same card on every run."""
    rng = seeded(card.id)
    return draw(scans()[0][card.scan], texture(card.background, rng), rng)
