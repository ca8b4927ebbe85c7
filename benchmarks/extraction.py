"""How near extraction comes to what the machine allows: the processor, the decoder, the disk, the GPU.

`python -m benchmarks.extraction [--repeats 5]` (`make bench-extract`) prints every measure with its goal, then curves,
and writes `results/bench/extraction.json`: `{measure: {"ratio", "goal", "runs"}}`, medians of runs made side by side.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from embedx.data import manifest as manifests
from embedx.data.manifest import Manifest, ids_digest
from embedx.data.sources import Folder
from embedx.extract import Settings, extract
from embedx.extract.encoding import kept_memory
from embedx.extract.shards import UNWRITTEN
from embedx.extractors import Backbone, Geometry, TorchvisionFacts, freeze, torchvision_backbone
from embedx.files import write_text
from embedx.store import CacheWriter, FeatureCache, Header, Rows
from embedx.workspace import Workspace

CORES = os.cpu_count() or 1
CUDA = torch.cuda.is_available()
SIZES = {"small": (250, 188), "medium": (500, 375), "large": (2000, 1500)}
BILINEAR = Geometry((224, 224), 256, "bilinear")
BICUBIC = Geometry((224, 224), 224, "bicubic")


class Mean(torch.nn.Module):
    """A backbone that costs nothing: the mean colour."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, ::16, ::16].float().mean(dim=(1, 2))


def cheap(name: str, reader: Geometry) -> Backbone:
    module = freeze(Mean())
    return Backbone(f"bench:{name}", 3, reader, module, feature="mean", model=name, weights="", libraries={})


def resnet50() -> Backbone:
    from torchvision.models import ResNet50_Weights
    from torchvision.models import resnet50 as build

    torch.manual_seed(0)
    facts = TorchvisionFacts("bench:resnet50", "pooled", "none")
    return torchvision_backbone(build(), ResNet50_Weights.IMAGENET1K_V1.transforms(), "random", facts, "")


@dataclass(frozen=True)
class Pictures:
    """A folder of JPEGs that look like photographs to a decoder, and its manifest."""

    root: Path
    manifest: Manifest

    @classmethod
    def draw(cls, root: Path, n: int, size: tuple[int, int]) -> Pictures:
        root.mkdir()
        rng = np.random.default_rng(0)
        for i in range(n):
            coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            fine = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
            fine = fine + rng.integers(-12, 13, fine.shape, dtype=np.int16)
            Image.fromarray(fine.clip(0, 255).astype(np.uint8)).save(root / f"{i:05d}.jpg", quality=90)
        ids = [f"{i:05d}.jpg" for i in range(n)]
        columns = {"id": ids, "label": [("a", "b")[i % 2] for i in range(n)], "split": ["train"] * n}
        return cls(root, manifests.build("bench", columns))

    def again(self, times: int) -> Pictures:
        """As many times as many images, the others by name only (hard links)."""
        ids = self.manifest.ids.tolist()
        for k in range(1, times):
            for i in ids:
                (self.root / f"{k}-{i}").hardlink_to(self.root / i)
        ids += [f"{k}-{i}" for k in range(1, times) for i in ids]
        columns = {"id": ids, "label": ["a", "b"] * (len(ids) // 2), "split": ["train"] * len(ids)}
        return Pictures(self.root, manifests.build("bench", columns))

    def first(self, n: int) -> Pictures:
        columns = {"id": self.manifest.ids[:n].tolist(), "label": ["a", "b"] * (n // 2), "split": ["train"] * n}
        return Pictures(self.root, manifests.build("bench", columns))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


_count = itertools.count()


def extraction(folder: Path, pictures: Pictures, backbones: dict[str, Backbone], **settings: Any) -> float:
    """Seconds of one whole extraction, from planning to the merged cache."""
    workspace = Workspace(folder / f"cache-{next(_count)}")
    how = Settings(**{"workers": CORES, "batch": 32, **settings})
    return seconds(lambda: extract(pictures.manifest, Folder(pictures.root), backbones, workspace, how))


def decoding(pictures: Pictures, geometry: Geometry, n: int = 320) -> float:
    """Seconds that one core takes for one image, as anybody would write it: open, convert, resize, crop."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    steps = Compose([Resize(geometry.resize, InterpolationMode(geometry.interpolation)), CenterCrop(geometry.size)])

    def work() -> None:
        for i in pictures.manifest.ids[:n]:
            with Image.open(pictures.root / i) as image:
                np.asarray(steps(image.convert("RGB")))

    return seconds(work) / min(n, len(pictures.manifest))


def forward(backbone: Backbone, device: str = "cpu", batch: int = 32, times: int = 3) -> float:
    """Seconds of the bare network for one image, all cores or the whole GPU at work, its input ready."""
    x = torch.zeros((batch, 3, 224, 224), device=device).to(memory_format=torch.channels_last)
    half = torch.autocast("cuda", torch.float16, enabled=backbone.precision == "float16")
    with torch.inference_mode(), half, kept_memory(device):
        backbone.module(x)

        def work() -> None:
            for _ in range(times):
                backbone.module(x)
            if device != "cpu":
                torch.cuda.synchronize()

        return seconds(work) / times / batch


def on_the_processor(folder: Path, pictures: Pictures) -> float:
    """(a) ResNet50: images per second over those of forward pass and decoding on the same cores, nothing in between."""
    backbone = resnet50().placed("cpu")
    some = pictures.first(640)
    ideal = [forward(backbone) + decoding(some, BILINEAR) / CORES]
    ours = extraction(folder, some, {"resnet50": backbone}) / len(some.manifest)
    ideal.append(forward(backbone) + decoding(some, BILINEAR) / CORES)
    return statistics.mean(ideal) / ours


def free_backbone(folder: Path, pictures: Pictures) -> float:
    """(b) A backbone that costs nothing: images per second over cores x one core's rate of decoding and resizing."""
    before = decoding(pictures, BILINEAR)
    ours = extraction(folder, pictures, {"mean": cheap("mean", BILINEAR)}) / len(pictures.manifest)
    return (before + decoding(pictures, BILINEAR)) / 2 / CORES / ours


def shared_decode(folder: Path, pictures: Pictures) -> float:
    """(c) Four backbones in two geometries: seconds of one run over the sum of four runs."""
    four = {f"{g.interpolation}{k}": cheap(f"{g.interpolation}{k}", g) for g in (BILINEAR, BICUBIC) for k in (1, 2)}
    some = pictures.first(960)
    together = extraction(folder, some, four)
    return together / sum(extraction(folder, some, {name: b}) for name, b in four.items())


def storage(folder: Path) -> Iterator[tuple[str, float]]:
    """(d) A cache of 100,000 x 1,024 float32 (410 MB), against the same bytes in a bare file."""
    n, dim, size = 100_000, 1024, 8192
    ids = np.array([f"{i:07d}.jpg" for i in range(n)], dtype=object)
    features = np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32)
    header = Header("bench", dim, "float32", ids_digest(ids), 0, n, n, {"identity": {}, "conditions": {}})
    cuts = [(start, min(start + size, n)) for start in range(0, n, size)]

    def bare() -> None:
        with (folder / "bare.bin").open("wb") as file:
            features.tofile(file)
            os.fsync(file.fileno())

    def shard(cut: tuple[int, int]) -> None:
        a, b = cut
        with CacheWriter(folder / f"{a}.h5", replace(header, start=a, stop=b), ids[a:b]) as writer:
            writer.append(Rows(ids[a:b], features[a:b], np.zeros(b - a, np.uint8), np.zeros((b - a, 32), np.uint8)))

    def shards_and_merge() -> None:
        with ThreadPoolExecutor(UNWRITTEN) as disk:
            list(disk.map(shard, cuts))
        with CacheWriter(folder / "cache.h5", header, ids) as writer:
            for a, _ in cuts:
                for rows in FeatureCache.open(folder / f"{a}.h5").chunks():
                    writer.append(rows)

    for left in folder.glob("*.*"):
        left.unlink()  # freeing what is replaced would count for one side only
    yield "writing", seconds(bare) / seconds(shards_and_merge)
    bare_read = seconds(lambda: np.fromfile(folder / "bare.bin", dtype=np.float32))
    yield "reading", bare_read / seconds(lambda: FeatureCache.open_complete(folder / "cache.h5").features())


def on_the_gpu(folder: Path, pictures: Pictures) -> float:
    """(e) ResNet50 in float16: images per second over the smaller of the network's rate and the decoders' rate."""
    backbone = resnet50().placed("cuda", "float16")
    slowest = max(forward(backbone, "cuda", 256, 20), decoding(pictures, BILINEAR) / CORES)
    ours = extraction(folder, pictures, {"resnet50": backbone}, devices=("cuda",), batch=256) / len(pictures.manifest)
    return slowest / ours


def curves(folder: Path, drawn: dict[str, Pictures], repeats: int) -> list[dict[str, Any]]:
    """Images per second for one to four cheap backbones, of small, medium and large images, exact and fast."""
    four = [cheap(f"{g.interpolation}{k}", g) for g in (BILINEAR, BICUBIC) for k in (1, 2)]
    points = []
    for size, decode in itertools.product(drawn, ("exact", "fast")):
        some = drawn[size].first({"small": 1600, "medium": 960, "large": 96}[size])
        for count in range(1, 5):
            chosen = {b.model: b.placed("cpu", decode=decode) for b in four[:count]}  # pyright: ignore[reportArgumentType]
            runs = [len(some.manifest) / extraction(folder, some, chosen) for _ in range(repeats)]
            points.append({
                "images": size, "decode": decode, "backbones": count,
                "geometries": len({b.reader for b in chosen.values()}), "images_per_second": statistics.median(runs),
                "one_core": 1 / decoding(some, BILINEAR),
            })  # fmt: skip
            print("{images:7} {decode:6} {backbones} backbones {images_per_second:7.0f} images/s".format(**points[-1]))
    return points


def measured(runs: Sequence[float], goal: float, what: str) -> dict[str, Any]:
    first = what.partition("\n")[0]
    return {"ratio": statistics.median(runs), "goal": goal, "runs": list(runs), "what": first}


@click.command()
@click.option("--repeats", default=5, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default="results/bench/extraction.json", show_default=True)
@click.option("--curves/--no-curves", "draw", default=True, show_default=True, help="The curves after the ratios.")
def main(repeats: int, out: Path, draw: bool) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn = {
            s: Pictures.draw(folder / s, n, SIZES[s]) for s, n in (("small", 1600), ("medium", 2400), ("large", 96))
        }
        medium = drawn["medium"].again(4)
        works: dict[str, tuple[Callable[[Path, Pictures], float], float]] = {
            "resnet50 on the cpu": (on_the_processor, 0.95),
            "free backbone": (free_backbone, 0.9),
            "shared decode": (shared_decode, 0.45),
        }
        if CUDA:
            works["resnet50 on the gpu"] = (on_the_gpu, 0.9)
        report: dict[str, dict[str, Any]] = {}
        free_backbone(folder, medium.first(96))  # imports, and the images into the page cache
        for measure, (work, goal) in works.items():
            report[measure] = measured([work(folder, medium) for _ in range(repeats)], goal, str(work.__doc__))
            _print(measure, report[measure])
        stored = [dict(storage(folder)) for _ in range(repeats)]
        for measure, goal in (("writing", 0.3), ("reading", 0.8)):
            report[measure] = measured([s[measure] for s in stored], goal, str(storage.__doc__))
            _print(measure, report[measure])
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, json.dumps(report, indent=1) + "\n")
        if draw:
            machine = {
                "cores": CORES,
                "machine": platform.processor() or platform.machine(),
                "torch": torch.__version__,
            }
            points = {"machine": machine, "points": curves(folder, drawn, min(3, repeats))}
            write_text(out.with_name("extraction-curves.json"), json.dumps(points, indent=1) + "\n")
    print(f"wrote {out}")


def _print(measure: str, m: dict[str, Any]) -> None:
    spread = f"{min(m['runs']):.2f} to {max(m['runs']):.2f}"
    print(f"{measure:20} {m['ratio']:5.2f} (goal {m['goal']:.2f}; {spread})  {m['what']}")


if __name__ == "__main__":
    main()
