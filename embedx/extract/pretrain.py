"""Make the weights of tiny networks; `python -m embedx.extract.pretrain` makes the three of the offline demo.

untrained  keeps its random start.
narrow     learns to read a few hundred fixed pictures of a few scans over a few textures.
broad      learns to read many scans over many textures, drawn anew each time, and to name the texture as well,
           the two being combined at random: its features hold the digit apart from what lies behind it.

Only scans that no card of the demo uses are drawn, and neither network ever sees the demo's land or water.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch.nn import functional

from embedx.data.digits import BACKGROUNDS, SIZE, TEXTURES, draw, scan_split, scans, texture
from embedx.extractors import TINY_MEAN, TINY_STD, WIDTH, TinyHeads, TinyNetwork
from embedx.extractors.tiny import Grade
from embedx.files import write_bytes

WEIGHTS = Path(__file__).resolve().parents[2] / "extractors" / "_weights"
HELD_OUT = 100
SAMPLES = 16  # of every texture kind, painted once and then shifted at random for every image
STEPS = 400  # of a graded network, whatever it is trained on: grades differ in what they see, not in how long
NOISES = tuple(kind for kind in TEXTURES if kind not in BACKGROUNDS)


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    `pictures` is how many images it ever sees, 0 for a new one every time; `tilt` and `jitter` say how strongly
    images are varied; `texture_weight` is the weight of naming the texture beside reading the digit.
    """

    seed: int
    scans: int
    textures: int
    steps: int
    pictures: int = 0
    tilt: float = 0.0
    jitter: float = 0.0
    texture_weight: float = 0.0
    batch: int = 64
    learning_rate: float = 3e-3


# The broad texture weight is a balance, struck on validation cards: after this many steps, at 0.1 the features
# have dropped the background altogether, at 0.3 they hold so much of it that a plain head leans on it again.
RECIPES = {
    "untrained": Recipe(seed=1, scans=0, textures=0, steps=0),
    "narrow": Recipe(seed=2, scans=100, textures=4, steps=200, pictures=400),
    "broad": Recipe(seed=3, scans=457, textures=64, steps=1200, tilt=0.3, jitter=0.15, texture_weight=0.2),
}


def pools() -> tuple[np.ndarray, np.ndarray]:
    """Return the scan numbers to learn from, shuffled (457,), and those only to check on (100,)."""
    numbers = np.random.default_rng(0).permutation(scan_split()["pretrain"])
    return numbers[HELD_OUT:], numbers[:HELD_OUT]


class Painter:
    """Endless random images: any of the given scans over any of the given texture kinds, independently."""

    def __init__(self, numbers: np.ndarray, kinds: tuple[str, ...], recipe: Recipe, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.numbers = numbers
        self.recipe = recipe
        self.bank = np.stack([[texture(kind, self.rng) for _ in range(SAMPLES)] for kind in kinds])

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return normalised images (size, 3, 64, 64), their digits (size,) and texture numbers (size,)."""
        images, digits = scans()
        chosen = self.rng.choice(self.numbers, size)
        kinds = self.rng.integers(len(self.bank), size=size)
        pixels = np.empty((size, SIZE, SIZE, 3), dtype=np.float32)
        for row, (number, kind) in enumerate(zip(chosen, kinds, strict=True)):
            behind = self.bank[kind, self.rng.integers(SAMPLES)]
            behind = np.roll(behind, tuple(self.rng.integers(SIZE, size=2)), axis=(0, 1))
            pixels[row] = draw(images[number], behind, self.rng, self.recipe.tilt)
        pixels /= 255
        if self.recipe.jitter:
            gain, lift = self.rng.normal(0.0, self.recipe.jitter, (2, size, 1, 1, 3)).astype(np.float32)
            grain = self.rng.standard_normal(pixels.shape, dtype=np.float32) * (self.recipe.jitter / 4)
            pixels = np.clip(pixels * (1 + gain) + lift / 2 + grain, 0.0, 1.0)
        mean, std = np.array((TINY_MEAN, TINY_STD), dtype=np.float32)
        normal = torch.from_numpy((pixels - mean) / std)
        return normal.permute(0, 3, 1, 2), torch.from_numpy(digits[chosen]), torch.from_numpy(kinds)


@torch.no_grad()
def accuracy(network: TinyNetwork, heads: TinyHeads, painter: Painter) -> float:
    """Return the share of 1,000 fresh images whose digit is read correctly."""
    images, digits, _ = painter.batch(1000)
    scores, _ = heads(network.features(images))
    return float((scores.argmax(1) == digits).float().mean())


def recipe_of(grade: Grade) -> Recipe:
    """How a network of a grade is trained: like the broad one, on as many pictures and kinds of texture as it says."""
    return Recipe(
        seed=grade.seed, scans=457, textures=grade.textures, steps=STEPS if grade.pictures else 0,
        pictures=grade.pictures, tilt=0.3, jitter=0.15, texture_weight=0.2, batch=32,
    )  # fmt: skip


@lru_cache(maxsize=1)  # pictures of a large one take 400 MB
def _album(recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The only pictures of a network: for networks that differ in width they are drawn once."""
    return _painter(recipe).batch(recipe.pictures)


def _painter(recipe: Recipe) -> Painter:
    return Painter(pools()[0][: recipe.scans], NOISES[: recipe.textures], recipe, recipe.seed)


def train(
    recipe: Recipe, width: int = WIDTH, progress: Callable[[int, float], None] = lambda step, loss: None
) -> tuple[TinyNetwork, TinyHeads]:
    """Train one network; return it with the heads that it was trained by. The caller's random numbers stay his.

    width     features of an image
    progress  called after each step with its number and the loss
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = TinyNetwork(width)
        heads = TinyHeads(max(1, recipe.textures), width)
        if not recipe.steps:
            return network, heads
        painter, album = (None, _album(recipe)) if recipe.pictures else (_painter(recipe), None)
        parameters = [*network.parameters(), *heads.parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=recipe.steps)
        for step in range(1, recipe.steps + 1):
            if album:
                some = torch.randint(recipe.pictures, (recipe.batch,))
                images, digits, textures = (part[some] for part in album)
            else:
                assert painter is not None
                images, digits, textures = painter.batch(recipe.batch)
            digit_scores, texture_scores = heads(network.features(images))
            loss = functional.cross_entropy(digit_scores, digits)
            if recipe.texture_weight:
                loss = loss + recipe.texture_weight * functional.cross_entropy(texture_scores, textures)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            progress(step, loss.item())
        return network, heads


@contextmanager
def one_thread() -> Iterator[None]:
    """So that the sums, and with them the weights, do not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train_grade(name: str, grade: Grade, path: Path) -> None:
    """Train the network of a grade and write its weights."""
    recipe = recipe_of(grade)
    with one_thread():
        network, _ = train(recipe, grade.width)
    write(network, {"name": name, "width": grade.width, **asdict(recipe)}, path)


def write(network: TinyNetwork, facts: dict[str, object], path: Path) -> None:
    """Save the weights with their recipe in the metadata; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    data = save(weights, metadata={"recipe": json.dumps(facts, sort_keys=True)})
    write_bytes(path, data)


def main() -> None:
    """Train and write the three networks that come along."""
    what = "Train the offline demo's three tiny networks and write their weights; takes some minutes."
    parser = argparse.ArgumentParser(prog="python -m embedx.extract.pretrain", description=what)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder to write to (default: %(default)s)")
    out = parser.parse_args().out
    with one_thread():
        for name, recipe in RECIPES.items():
            network, facts = _told(name, recipe)
            write(network, facts, out / f"{name}.safetensors")
            print(f"wrote {out / name}.safetensors", file=sys.stderr)


def _told(name: str, recipe: Recipe) -> tuple[TinyNetwork, dict[str, object]]:
    """Train one network, saying how far it is; return it with its recipe and what came of it."""
    began = time.perf_counter()

    def progress(step: int, loss: float) -> None:
        if step % 100 == 0:
            so_far = f"step {step}/{recipe.steps}, loss {loss:.3f}"
            print(f"{name}: {so_far}, {time.perf_counter() - began:.0f} s", file=sys.stderr)

    network, heads = train(recipe, progress=progress)
    facts: dict[str, object] = {"name": name, **asdict(recipe)}
    if recipe.steps:
        share = accuracy(network, heads, Painter(pools()[1], NOISES[: recipe.textures], recipe, recipe.seed + 1000))
        print(f"{name}: {share:.3f} of unseen scans read correctly", file=sys.stderr)
        facts["held_out_accuracy"] = round(share, 4)
    return network, facts


if __name__ == "__main__":
    main()
