"""The four files of MNIST: addresses and checksums as the installed torchvision has them."""

from __future__ import annotations

from embedx.data.download import Download


def downloads() -> tuple[Download, ...]:
    """The files, still packed. A function, as torchvision is imported only when somebody asks."""
    from torchvision.datasets import MNIST

    return tuple(
        Download(name, tuple(mirror + name for mirror in MNIST.mirrors), md5=md5, licence="MNIST: CC BY-SA 3.0")
        for name, md5 in MNIST.resources
    )
