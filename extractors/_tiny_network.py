"""The tiny network behind the family `tiny`; `embedx.extract.pretrain` makes its weights."""

import torch
from torch import nn

TINY_MEAN = (0.5, 0.5, 0.5)
TINY_STD = (0.25, 0.25, 0.25)
"""Per channel, for pixels in 0..1: the network expects (pixels - MEAN) / STD."""

WIDTH = 128
"""How many features one image has by default."""
GROUPS = 8


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    # Group norm treats every image by itself: features depend neither on the batch nor on train or eval mode.
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(GROUPS, outputs),
        nn.ReLU(inplace=True),
    )


class TinyNetwork(nn.Module):
    """Plain convolutions from a normalised float image batch (B, 3, 64, 64) to features (B, width).

    width  a multiple of 8; the other layers are narrower or wider in proportion
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        if width < GROUPS or width % GROUPS:
            raise ValueError(f"a width of {width} features; expected a multiple of {GROUPS}")
        # 32 x 32 pixels after the first layer, 16 x 16, 16 x 16, 8 x 8, 8 x 8, 4 x 4.
        layers, before = [], 3
        for channels, stride in ((24, 2), (32, 2), (64, 1), (64, 2), (96, 1), (WIDTH, 2)):
            own = GROUPS * max(1, round(channels * width / WIDTH / GROUPS))
            layers.append(_block(before, own, stride))
            before = own
        self.blocks = nn.Sequential(*layers)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the average over all places of the last maps: (B, 3, 64, 64) to (B, width)."""
        return self.blocks(x).mean(dim=(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `features(x)`."""
        return self.features(x)


class TinyHeads(nn.Module):
    """Digit and texture read off the features, in pre-training only: never part of the weights that are kept."""

    def __init__(self, textures: int, width: int = WIDTH) -> None:
        super().__init__()
        self.digit = nn.Linear(width, 10)
        self.texture = nn.Linear(width, textures)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scores of the digits (B, 10) and of the textures (B, textures) for features (B, width)."""
        return self.digit(features), self.texture(features)
