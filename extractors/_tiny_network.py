"""The tiny network behind the offline demo's three extractors; `embedx.extract.pretrain` makes its weights."""

import torch
from torch import nn

TINY_MEAN = (0.5, 0.5, 0.5)
TINY_STD = (0.25, 0.25, 0.25)
"""Per channel, for pixels in 0..1: the network expects (pixels - MEAN) / STD."""

WIDTH = 128
"""How many features one image has."""


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    # Group norm treats every image by itself: features depend neither on the batch nor on train or eval mode.
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.ReLU(inplace=True),
    )


class TinyNetwork(nn.Module):
    """Plain convolutions from a normalised float image batch (B, 3, 64, 64) to features (B, 128)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            _block(3, 24, 2),  # 32 x 32
            _block(24, 32, 2),  # 16 x 16
            _block(32, 64, 1),
            _block(64, 64, 2),  # 8 x 8
            _block(64, 96, 1),
            _block(96, WIDTH, 2),  # 4 x 4
        )

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the average over all places of the last maps: (B, 3, 64, 64) to (B, 128)."""
        return self.blocks(x).mean(dim=(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `features(x)`."""
        return self.features(x)


class TinyHeads(nn.Module):
    """Digit and texture read off the features, in pre-training only: never part of the shipped weights."""

    def __init__(self, textures: int) -> None:
        super().__init__()
        self.digit = nn.Linear(WIDTH, 10)
        self.texture = nn.Linear(WIDTH, textures)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scores of the digits (B, 10) and of the textures (B, textures) for features (B, 128)."""
        return self.digit(features), self.texture(features)
