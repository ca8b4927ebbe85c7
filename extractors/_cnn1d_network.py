"""The small network over vectors behind the family `cnn1d`; `embedx.extract.pretrain_signals` makes its weights."""

import torch
from torch import nn

LENGTH = 40
CHANNELS = 256


class Cnn1dNetwork(nn.Module):
    """Three convolutions of step 2, each with a ReLU: vectors (b, 40) to features (b, 1280), 256 at each of 5 places.

    As the network that comes with MNIST-1D, with 256 channels where that has 25.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(1, CHANNELS, 5, stride=2, padding=1), nn.ReLU(),  # 19 places
            nn.Conv1d(CHANNELS, CHANNELS, 3, stride=2, padding=1), nn.ReLU(),  # 10
            nn.Conv1d(CHANNELS, CHANNELS, 3, stride=2, padding=1), nn.ReLU(),  # 5
            nn.Flatten(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features of vectors (b, 40)."""
        return self.layers(x[:, None])


class Cnn1dClassifier(nn.Module):
    """The network and its last layer, which tells ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Cnn1dNetwork()
        self.last = nn.Linear(5 * CHANNELS, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes (b, 10)."""
        return self.last(self.network(x))
