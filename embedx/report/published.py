"""Published accuracies of the datasets, and the sizes of pre-training sets, each with its source.

The accuracies stand in percent as printed and are read as fractions. Rows that could not be traced to a paper, its code
or its abstract are kept, as everybody quotes them, and marked (`traced` is False).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from embedx.extractors import ALIASES

KINDS = {
    "end": "whole network trained on the dataset",
    "last": "network trained on the dataset, then its last layer anew",
    "frozen": "head on frozen features",
    "zero": "frozen features and text prompts, nothing trained",
}

SOURCES = {
    "dfr": "Kirichenko et al. 2023 (arXiv 2204.02937), Table 2, some rows quoted there from the methods' own papers",
    "dfr code": "README of the code of Kirichenko et al. 2023: its published checkpoints, evaluated again",
    "mehta": "Mehta et al. 2022 (arXiv 2212.06254), abstract and summaries; its table per backbone was not found",
    "afr": "Qiu et al. 2023, README of the published code",
    "bg": "Idrissi et al. 2022 (arXiv 2110.14503): 50 settings each, chosen by the worst group on validation",
    "sfl": "Izmailov et al. 2022, README of the published code; the best of many backbones",
    "gdro": "Sagawa et al. 2020 (arXiv 1911.08731), Table 1, standard regularisation",
    "several": "published comparison; in which table was not noted",
    "khosrovyan": "README of annakhosrovyan/waterbirds-training on GitHub, one run; adjusted averages by us",
    "lainshower": "notebook of the public demo by Lainshower",
    "zhang": "Zhang and Ré 2022 (arXiv 2207.07180)",
    "roboshot": "Adila et al. 2023 (RoboShot), Table 1",
    "jtt": "Liu et al. 2021 (JTT) and papers quoting it",
    "george": "Sohoni et al. 2020 (GEORGE) and papers quoting it",
    "spare": "Yang et al. 2023 (SPARE)",
    "moayeri": "Moayeri et al. 2023 (arXiv 2212.02648), appendix E: gender, a random 90 / 10 split without validation",
}

# dataset | kind | method | network | worst group | average | group labels used | source | P, C: traced, M: not
# Averages are as published: on Waterbirds mostly adjusted to the groups' shares of train; `raw` where known not to be.
TABLE = """
waterbirds | end | ERM | ResNet-50 | 74.9±2.4 | 98.1±0.1 | none | dfr | P
waterbirds | end | ERM | ResNet-50 | 72.6 | – | ? | afr | P
waterbirds | end | ERM | ResNet-50 | 60.0 | 97.3 | ? | gdro | P
waterbirds | end | ERM, tuned | ResNet-50 | 85.5±1.0 | – | validation, to choose | bg | M
waterbirds | end | training from raw images | ? | 72 | – | none | mehta | P
waterbirds | end | GroupDRO | ? | 89 | – | train | mehta | P
waterbirds | end | GroupDRO | ResNet-50 | 91.4 | 93.5 | train; validation, to choose | dfr | P
waterbirds | end | GroupDRO | ResNet-50 | 87.1±3.4 | – | train; validation, to choose | bg | M
waterbirds | end | JTT | ResNet-50 | 86.7 | 93.3 | validation, to choose | dfr | P
waterbirds | end | JTT | ResNet-50 | 85.6±0.2 | – | validation, to choose | bg | M
waterbirds | end | CnC | ResNet-50 | 88.5±0.3 | 90.9±0.1 | validation, to choose | dfr | P
waterbirds | end | SSA | ResNet-50 | 89.0±0.6 | 92.2±0.9 | validation, to fit | dfr | P
waterbirds | end | SUBG | ResNet-50 | 89.1±1.1 | – | train; validation, to choose | dfr | P
waterbirds | end | RWY | ResNet-50 | 86.1±0.7 | – | validation, to choose | bg | P
waterbirds | end | RWG | ResNet-50 | 87.6±1.6 | – | train; validation, to choose | bg | P
waterbirds | end | SUBY | ResNet-50 | 82.4±1.7 | – | validation, to choose | bg | M
waterbirds | end | EIIL + GroupDRO | ResNet-50 | 77.2±1.0 | 96.5±0.2 | ? | several | P
waterbirds | end | LfF | ResNet-50 | 78.0 | 91.2 | ? | jtt | M
waterbirds | end | CVaR-DRO | ResNet-50 | 75.9 | 96.0 | ? | jtt | M
waterbirds | end | ERM | ResNet-50 | 72.6 | 97.3 | ? | jtt | M
waterbirds | end | GEORGE | ResNet-50 | 76.2±2.0 | 95.7 | ? | george | M
waterbirds | end | SPARE | ResNet-50 | 91.6±0.8 | 96.2±0.6 | ? | spare | M
waterbirds | last | DFR on validation | ResNet-50 | 92.9±0.2 | 94.2±0.4 | validation, to fit | dfr | P
waterbirds | last | DFR on validation | ResNet-50 | 92.0±0.9 | – | validation, to fit | dfr code | C
waterbirds | last | DFR on train | ResNet-50 | 90.2±0.8 | 97.0±0.3 | train; validation, to choose | dfr | M
waterbirds | last | DFR, best backbone | several | 97 | – | validation, to fit | sfl | C
waterbirds | last | AFR | ResNet-50 | 90.4±1.1 | 94.2±1.2 | validation, to choose | afr | P
waterbirds | last | SELF | ResNet-50 | 91.6±1.4 | 93.6±1.1 | ? | several | P
waterbirds | last | EVaLS-GL | ResNet-50 | 89.4±0.3 | 95.1±0.3 | ? | several | P
waterbirds | frozen | plain | SWAG ViT-H/14, fine-tuned on ImageNet | 90.13 | – | none, to fit | mehta | P
waterbirds | frozen | plain | ResNet-50 | 63.71 | 96.83 | ? | khosrovyan | C
waterbirds | frozen | JTT | ResNet-50 | 68.54 | 96.69 | ? | khosrovyan | C
waterbirds | frozen | plain, again | ResNet-50 | 59.81 | 86.88 raw | ? | khosrovyan | C
waterbirds | frozen | AFR, again | ResNet-50 | 65.42 | 85.54 raw | ? | khosrovyan | C
waterbirds | frozen | plain | SWAG RegNetY-128GF, fine-tuned on ImageNet | 78.35 | 98.76 | ? | khosrovyan | C
waterbirds | frozen | JTT | SWAG RegNetY-128GF, fine-tuned on ImageNet | 83.96 | 98.57 | ? | khosrovyan | C
waterbirds | frozen | plain, again | SWAG RegNetY-128GF, fine-tuned on ImageNet | 75.39 | 93.25 raw | ? | khosrovyan | C
waterbirds | frozen | JTT, again | SWAG RegNetY-128GF, fine-tuned on ImageNet | 87.38 | 93.82 raw | ? | khosrovyan | C
waterbirds | frozen | AFR, again | SWAG RegNetY-128GF, fine-tuned on ImageNet | 83.49 | 94.53 raw | ? | khosrovyan | C
waterbirds | frozen | plain | DINOv2 ViT-B | 87.69 | 98.71 | ? | khosrovyan | C
waterbirds | frozen | plain, again | DINOv2 ViT-B | 90.03 | 96.13 raw | ? | khosrovyan | C
waterbirds | frozen | JTT, again | DINOv2 ViT-B | 91.28 | 96.19 raw | ? | khosrovyan | C
waterbirds | frozen | plain | CLIP RN50 | 59.60±0.63 | 96.26±0.06 | ? | lainshower | C
waterbirds | frozen | plain | CLIP RN50 | 7.9 | 93.5 | ? | zhang | M
waterbirds | frozen | WiSE-FT | CLIP RN50 | 49.8 | 91.0 | ? | zhang | M
waterbirds | frozen | DFR, subsampled | CLIP RN50 | 63.9 | 91.8 | ? | zhang | M
waterbirds | frozen | DFR, upsampled | CLIP RN50 | 51.3 | 92.4 | ? | zhang | M
waterbirds | frozen | contrastive adapter | CLIP RN50 | 83.7 | 89.4 | ? | zhang | M
waterbirds | frozen | plain | CLIP ViT-L/14 | 65.9 | 97.6 | ? | zhang | M
waterbirds | frozen | WiSE-FT | CLIP ViT-L/14 | 65.9 | 97.6 | ? | zhang | M
waterbirds | frozen | DFR, subsampled | CLIP ViT-L/14 | 51.9 | 95.7 | ? | zhang | M
waterbirds | frozen | contrastive adapter | CLIP ViT-L/14 | 86.9 | 96.2 | ? | zhang | M
waterbirds | zero | class prompts | CLIP RN50 | 39.56 | 92.92 | none | lainshower | C
waterbirds | zero | class prompts | CLIP RN50 | 39.6 | 92.9 | none | zhang | M
waterbirds | zero | class prompts | CLIP ViT-L/14 | 25.7 | 87.3 | none | zhang | M
waterbirds | zero | class prompts | CLIP ViT-B/32 | 27.9 | 80.7 | none | roboshot | P
waterbirds | zero | group prompts | CLIP ViT-B/32 | 43.5 | 81.6 | none | roboshot | P
waterbirds | zero | class prompts | CLIP ViT-L/14 | 27.3 | 88.7 | none | roboshot | P
waterbirds | zero | class prompts | ALIGN | 50.3 | 72.0 | none | roboshot | P
celeba | end | ERM | ResNet-50 | 46.9±2.8 | 95.3±0.0 | none | dfr | P
celeba | end | ERM | ResNet-50 | 47.2 | – | ? | afr | P
celeba | end | ERM, tuned | ResNet-50 | 79.7±3.7 | – | validation, to choose | bg | M
celeba | end | GroupDRO | ResNet-50 | 88.9 | 92.9 | train; validation, to choose | dfr | P
celeba | end | GroupDRO | ResNet-50 | 86.9±1.1 | – | train; validation, to choose | bg | M
celeba | end | JTT | ResNet-50 | 81.1 | 88.0 | validation, to choose | dfr | P
celeba | end | JTT | ResNet-50 | 75.6±7.7 | – | validation, to choose | bg | M
celeba | end | CnC | ResNet-50 | 88.8±0.9 | 89.9±0.5 | validation, to choose | dfr | P
celeba | end | SSA | ResNet-50 | 89.8±1.3 | 92.8±0.1 | validation, to fit | dfr | P
celeba | end | SUBG | ResNet-50 | 85.6±2.3 | – | train; validation, to choose | dfr | P
celeba | end | RWY | ResNet-50 | 82.9±2.2 | – | validation, to choose | bg | P
celeba | end | RWG | ResNet-50 | 84.3±1.8 | – | train; validation, to choose | bg | P
celeba | end | SUBY | ResNet-50 | 79.9±3.3 | – | validation, to choose | bg | M
celeba | end | EIIL + GroupDRO | ResNet-50 | 81.7±0.8 | 85.7±0.1 | ? | several | P
celeba | end | LfF | ResNet-50 | 77.2 | 85.1 | ? | jtt | M
celeba | end | CVaR-DRO | ResNet-50 | 64.4 | 82.5 | ? | jtt | M
celeba | end | ERM | ResNet-50 | 47.2 | 95.6 | ? | jtt | M
celeba | end | GEORGE | ResNet-50 | 53.7 | 94.6 | ? | george | M
celeba | end | SPARE | ResNet-50 | 90.3±0.3 | 91.1±0.1 | ? | spare | M
celeba | last | DFR on validation | ResNet-50 | 88.3±1.1 | 91.3±0.3 | validation, to fit | dfr | P
celeba | last | DFR on validation | ResNet-50 | 88.02±1.6 | – | validation, to fit | dfr code | C
celeba | last | DFR on train | ResNet-50 | 80.7±2.4 | 90.6±0.7 | train; validation, to choose | dfr | M
celeba | last | DFR, best backbone | several | 92 | – | validation, to fit | sfl | C
celeba | last | AFR | ResNet-50 | 82.0±0.5 | 91.3±0.3 | validation, to choose | afr | P
celeba | last | SELF | ResNet-50 | 83.9±0.9 | 91.7±0.4 | ? | several | P
celeba | last | EVaLS-GL | ResNet-50 | 84.6±1.6 | 91.1±0.6 | ? | several | P
celeba | frozen | plain | CLIP RN50 | 11.9 | 94.7 | ? | zhang | M
celeba | frozen | WiSE-FT | CLIP RN50 | 85.6 | 88.6 | ? | zhang | M
celeba | frozen | DFR, upsampled | CLIP RN50 | 89.6 | 91.8 | ? | zhang | M
celeba | frozen | plain | CLIP ViT-L/14 | 28.3 | 94.7 | ? | zhang | M
celeba | frozen | WiSE-FT | CLIP ViT-L/14 | 80.0 | 87.4 | ? | zhang | M
celeba | frozen | DFR, upsampled | CLIP ViT-L/14 | 83.7 | 91.2 | ? | zhang | M
celeba | zero | class prompts | CLIP RN50 | 75.9 | 82.3 | none | zhang | M
celeba | zero | class prompts | CLIP ViT-L/14 | 62.1 | 71.9 | none | zhang | M
celeba | zero | class prompts | CLIP ViT-B/32 | 72.7 | 80.1 | none | roboshot | P
celeba | zero | class prompts | CLIP ViT-L/14 | 74.3 | 80.6 | none | roboshot | P
utkface | frozen | plain | adversarially robust ResNet-50 | – | 86.5 raw | none | moayeri | P
"""

BACKBONES = {
    "ResNet-50": "resnet50", "SWAG ViT-H/14, fine-tuned on ImageNet": "swag-vit-h14-e2e",
    "SWAG RegNetY-128GF, fine-tuned on ImageNet": "swag-regnety-128gf-e2e", "DINOv2 ViT-B": "dinov2-vit-b14",
    "CLIP RN50": "clip-rn50", "CLIP ViT-L/14": "clip-vit-l14", "CLIP ViT-B/32": "clip-vit-b32",
    "adversarially robust ResNet-50": "robust-resnet50",
}  # fmt: skip
"""Short names of the networks whose frozen features the published heads were fitted to."""

HEADS = {
    "plain": "plain", "plain, again": "plain", "JTT": "jtt", "JTT, again": "jtt", "AFR, again": "afr",
    "WiSE-FT": "wise", "class prompts": "zero-shot",
}  # fmt: skip
"""Our heads of the same name; others were fitted to rows that the sources do not say, or need more than features."""

DATASETS = tuple(dict.fromkeys(line.partition("|")[0].strip() for line in TABLE.strip().splitlines()))
TEST_GROUPS = {"waterbirds": (2255, 2255, 642, 642), "celeba": (9767, 7535, 2480, 180)}
"""Test rows of each group in the versions of the datasets that the published accuracies are of."""


@dataclass(frozen=True)
class Published:
    """One published result, in fractions; None where none is given, and for `spread` where only one figure is.

    Of worst group and average one is given at least.

    kind           key of KINDS: what was trained
    labels         group labels used, in words; "" where the source at hand does not say
    average_raw    True where the average is known to be correct / n, not adjusted to the groups' shares of train
    traced         whether the figure was found at its source
    """

    dataset: str
    kind: str
    method: str
    network: str
    worst_group: float | None
    worst_group_spread: float | None
    average: float | None
    average_spread: float | None
    average_raw: bool
    labels: str
    source: str
    traced: bool


@dataclass(frozen=True)
class Pretraining:
    """The largest set of images a backbone was trained on."""

    name: str
    images: int
    source: str


IN1K = Pretraining("ImageNet-1k", 1_281_167, "Russakovsky et al. 2015, training split")
IN22K = Pretraining("ImageNet-22k", 14_197_122, "image-net.org, release of 2011 (21,841 classes)")
IG = Pretraining("IG-3.6B", 3_600_000_000, "Singh et al. 2022 (SWAG)")
WIT = Pretraining("WIT-400M", 400_000_000, "Radford et al. 2021 (CLIP)")
LAION = Pretraining("LAION-2B", 2_320_000_000, "Schuhmann et al. 2022 (English part of LAION-5B)")
LVD = Pretraining("LVD-142M", 142_000_000, "Oquab et al. 2023 (DINOv2)")
LVD3 = Pretraining("LVD-1689M", 1_689_000_000, "Siméoni et al. 2025 (DINOv3)")

PRETRAINING = (  # the first pattern that a whole spec matches; what none matches is left out of the plot, which says so
    (r"swag:.*", IG),
    (r"clip:.*/openai", WIT),
    (r"clip:.*/laion2b_.*", LAION),
    (r"dinov2:.*", LVD),
    (r"dinov3:(?!.*-sat).*", LVD3),
    (r"torchvision:.*/IMAGENET1K_V[12]", IN1K),
    (r"robust:(madry|salman)-.*", IN1K),
    (r"lite:.*", IN1K),
    (r"timm:[^.]+\.((tv|tv2|a1|a1h|a2|a3|fb|augreg)_in1k|dino|mae)", IN1K),
    (r"timm:[^.]+\.(fb_in22k|augreg2?_in21k)(_ft_in1k)?", IN22K),
)


@cache
def published(dataset: str) -> tuple[Published, ...]:
    """What was published for the dataset of that name; nothing for one that has no row."""
    rows = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines()]
    return tuple(_read(row) for row in rows if row[0] == dataset)


def counterpart(row: Published) -> tuple[str, str] | None:
    """The (backbone, head) of ours that a published figure of frozen features is of; None for any other figure."""
    if row.kind not in ("frozen", "zero") or row.network not in BACKBONES or row.method not in HEADS:
        return None
    return BACKBONES[row.network], HEADS[row.method]


def same_test_set(dataset: str, counts: Sequence[int]) -> bool:
    """Whether test groups of these sizes are those of the published figures."""
    return tuple(sorted(counts)) == tuple(sorted(TEST_GROUPS.get(dataset, ())))


def spec_of(backbone: str) -> str:
    """`FAMILY:MODEL` of a backbone called by its short name; other names as they are."""
    return ALIASES[backbone].spec if backbone in ALIASES else backbone


def parameters(backbone: str) -> int | None:
    """Parameters of a backbone that has a short name, by that or its spec; None for others."""
    return next((alias.parameters for alias in ALIASES.values() if alias.spec == spec_of(backbone)), None)


def pretraining(backbone: str) -> Pretraining | None:
    """What a backbone was pre-trained on; None where its size is not known well."""
    return next((source for pattern, source in PRETRAINING if re.fullmatch(pattern, spec_of(backbone))), None)


def _read(cells: Sequence[str]) -> Published:
    dataset, kind, method, network, worst, average, labels, source, tag = cells
    value, spread = _figure(worst)
    return Published(
        dataset, kind, method, network.replace("?", ""), value, spread, *_figure(average), average.endswith("raw"),
        labels.replace("?", ""), SOURCES[source], {"P": True, "C": True, "M": False}[tag],
    )  # fmt: skip


def _figure(text: str) -> tuple[float | None, float | None]:
    """`92.9±0.2` as (0.929, 0.002)."""
    if text == "–":
        return None, None
    value, _, spread = text.removesuffix(" raw").partition("±")
    return float(value) / 100, float(spread) / 100 if spread else None
