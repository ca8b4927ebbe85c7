"""What a library itself makes of images: the other side of `embedx verify BACKBONE`.

A family may offer `official(model, weights=None) -> Official`, built of the library's own functions. This code, and
what it calls, may share nothing with the family's `load` but the reading of the file: a pipeline compared with itself
proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


@dataclass(frozen=True, eq=False)
class Official:
    """The published pipeline of one model.

    library    name and version of what it is made of
    transform  from an RGB image of any size to the (3, height, width) floats that the network takes
    features   from a batch of these to (b, dim)
    projected  the features are the projected ones: ours are compared after the stored projection
    """

    library: str
    transform: Callable[[Image], torch.Tensor]
    features: Callable[[torch.Tensor], torch.Tensor]
    projected: bool = False


def of_timm(model: str, state: Mapping[str, torch.Tensor] | None) -> Official:
    """`timm.create_model` and `create_transform`; the pretrained weights, or those of a state dict."""
    import timm
    from timm.data.config import resolve_model_data_config

    network: Any = timm.create_model(model, pretrained=state is None, num_classes=0).eval()
    if state is not None:
        require_filled(network.load_state_dict(dict(state), strict=False))
    return Official(
        f"timm {timm.__version__}", _timm_transform(resolve_model_data_config(network)),
        lambda x: network.forward_head(network.forward_features(x), pre_logits=True),
    )  # fmt: skip


def of_timm_at(model: str, state: Mapping[str, torch.Tensor] | None, pixels: int, tokens: str) -> Official:
    """A model of timm at another resolution, loaded by timm; tokens as `forward_intermediates` tells them apart.

    tokens  "cls", "mean" or "cls+mean"; empty for a network without tokens
    """
    import timm
    import torch
    from timm.data.config import resolve_data_config

    options: dict[str, Any] = {} if state is None else {"pretrained_cfg_overlay": {"state_dict": dict(state)}}
    if tokens:
        options["img_size"] = pixels
    network: Any = timm.create_model(model, pretrained=True, num_classes=0, **options).eval()

    def features(x: torch.Tensor) -> torch.Tensor:
        if not tokens:
            return network(x)
        ((patches, prefix),) = network.forward_intermediates(
            x, indices=1, norm=True, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
        token, mean = prefix[:, 0], patches.mean(dim=1)
        return {"cls": token, "mean": mean, "cls+mean": torch.cat((token, mean), dim=1)}[tokens]

    published: Any = timm.get_pretrained_cfg(model)
    config = resolve_data_config({"input_size": (3, pixels, pixels)}, pretrained_cfg=published.to_dict())
    return Official(f"timm {timm.__version__}", _timm_transform(config), features)


def of_torchvision(model: str, enum: Any, state: Mapping[str, torch.Tensor] | None) -> Official:
    """`torchvision.models.get_model` without its last layer, and the transform published with the weights."""
    import torchvision

    if state is None:
        network: Any = torchvision.models.get_model(model, weights=enum).eval()
        _drop_classifier(network, enum)
    else:
        network = torchvision.models.get_model(model, **_arguments(model, enum)).eval()
        _drop_classifier(network, enum)
        require_filled(network.load_state_dict(dict(state), strict=False))
    return Official(f"torchvision {torchvision.__version__}", enum.transforms(), network)


def require_filled(loaded: Any) -> None:
    """Nothing may stay at its random value. What is left over is the classifier."""
    if loaded.missing_keys:
        raise ValueError(f"the file lacks {', '.join(loaded.missing_keys[:3])}; choose the model of these weights")


def _timm_transform(config: dict[str, Any]) -> Callable[[Image], torch.Tensor]:
    from timm.data.transforms_factory import create_transform

    # Any: timm may also give a tuple of transforms, but only in training.
    transform: Any = create_transform(**config, is_training=False)
    return transform


def _arguments(model: str, enum: Any) -> dict[str, Any]:
    """What torchvision's builders would read off the weights themselves."""
    arguments: dict[str, Any] = {"num_classes": len(enum.meta["categories"])}
    if model.startswith("vit_"):
        arguments["image_size"] = enum.meta["min_size"][0]
    if model in ("googlenet", "inception_v3"):
        arguments |= {"transform_input": True, "init_weights": False}
    return arguments


def _drop_classifier(network: Any, enum: Any) -> None:
    """Replace the linear layer that gives the network's output by the identity; one forward pass shows which it is."""
    import torch

    outputs: dict[str, torch.Tensor] = {}
    watches = [
        module.register_forward_hook(lambda m, taken, given, name=name: outputs.update({name: given}))
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    size = enum.meta["min_size"]
    with torch.inference_mode():
        logits = network(torch.zeros(1, 3, *(max(s, 64) for s in size)))
    for watch in watches:
        watch.remove()
    names = [name for name, output in outputs.items() if output is logits]
    if len(names) != 1:
        raise ValueError("its logits do not come from one linear layer; there is nothing to compare with")
    parent, _, attribute = names[0].rpartition(".")
    setattr(network.get_submodule(parent), attribute, torch.nn.Identity())
