"""Scans of 28 x 28 pixels in ten classes: MNIST or what is laid out like it, from IDX files or from this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedx.data.digits import scan_split, scans
from embedx.data.download import Download
from embedx.datasets import _idx
from embedx.errors import ManifestError
from embedx.plugins import nearest

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its four files."""
MNIST = {"train": 60_000, "test": 10_000}
OF_MACHINE = ("auto", "fashion-mnist", "digits")


@dataclass(frozen=True, eq=False)
class Scans:
    """Grey pixels (n, 28, 28), uint8, and values 0 to 9 (n,) of the training and of the test half."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    name: str
    licence: str
    remarks: tuple[str, ...] = ()


def downloads() -> tuple[Download, ...]:
    """The files of MNIST, still packed: addresses and checksums as the installed torchvision has them.

    A function, as torchvision is imported only when somebody asks.
    """
    from torchvision.datasets import MNIST as OFFICIAL

    return tuple(
        Download(name, tuple(mirror + name for mirror in OFFICIAL.mirrors), md5=md5, licence="MNIST: CC BY-SA 3.0")
        for name, md5 in OFFICIAL.resources
    )


def of_files(root: Path) -> Scans:
    """The scans in the four IDX files of a folder. Raises `ManifestError` for files that are not these."""
    train, test = _idx.mnist(root, "train"), _idx.mnist(root, "t10k")
    counts = {"train": len(train[1]), "test": len(test[1])}
    if (counts["train"], counts["test"]) == (MNIST["test"], MNIST["train"]):
        raise ManifestError(
            f"{root} holds {counts['train']:,} images called train and {counts['test']:,} called t10k, those of test; "
            "the names are swapped: rename the four files"
        )
    remarks = [f"found {n:,} {s} images; MNIST has {MNIST[s]:,}" for s, n in counts.items() if n != MNIST[s]]
    return Scans(train, test, "the IDX files of the root", "MNIST: CC BY-SA 3.0; Fashion-MNIST: MIT", tuple(remarks))


def of_machine(which: str) -> Scans:
    """Fashion-MNIST of Debian's package, or the digits of scikit-learn; "auto": the former where it is.

    Raises `ManifestError` for another name, and for Fashion-MNIST where it is not.
    """
    if which not in OF_MACHINE:
        raise ManifestError(f"-O scans={which}: {nearest(which, OF_MACHINE)}")
    if which != "digits" and FASHION.is_dir():
        train, test = _idx.mnist(FASHION, "train"), _idx.mnist(FASHION, "t10k")
        said = f"painted from Fashion-MNIST in {FASHION}, whose values 0 to 9 are kinds of clothes"
        return Scans(train, test, "Fashion-MNIST", "Fashion-MNIST: MIT", (said,))
    if which == "fashion-mnist":
        raise ManifestError(
            f"{FASHION} does not exist; install Debian's package dataset-fashion-mnist, give the folder of the four "
            "files with --root, or take -O scans=digits"
        )
    pixels, values = scans()
    large = np.pad(np.kron(np.rint(255 * pixels), np.ones((1, 3, 3))), ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    of_test = np.zeros(len(values), dtype=bool)
    of_test[scan_split()["test"]] = True
    said = f"painted from the {len(values):,} scans of scikit-learn, 8 x 8 pixels enlarged three times"
    return Scans(
        (large[~of_test], values[~of_test]), (large[of_test], values[of_test]), "scikit-learn's digits", "CC BY 4.0",
        (said,),
    )  # fmt: skip
