"""Where the time of an extraction went, and what would make the next one faster."""

from __future__ import annotations

import os
from dataclasses import dataclass

WAITED_LONG = 0.3  # of the time; below that, decoding is not what limits


@dataclass
class Throughput:
    """Sums over one run of one or several processes.

    images     rows decoded
    seconds    from the first to the last
    decoding   seconds of reading, decoding and resizing, summed over processes
    device     seconds that the backbones computed, likewise
    waiting    seconds in which a device had to wait for images, likewise
    workers    processes that only decoded; 0: the computing ones did it, in their own time
    processes  processes that computed
    """

    images: int = 0
    seconds: float = 0.0
    decoding: float = 0.0
    device: float = 0.0
    waiting: float = 0.0
    workers: int = 0
    processes: int = 0

    def add(self, other: Throughput) -> None:
        """Join what another process did at the same time."""
        self.processes += other.processes
        self.images += other.images
        self.seconds = max(self.seconds, other.seconds)
        self.decoding += other.decoding
        self.device += other.device
        self.waiting += other.waiting
        self.workers += other.workers

    def report(self) -> str:
        """`1,600 images in 4.0 s, 400 images/s: …`, with the shares of the time."""
        seconds = max(self.seconds, 1e-9)
        device, waiting = (100 * x / seconds / max(1, self.processes) for x in (self.device, self.waiting))
        return (
            f"{self.images:,} images in {self.seconds:.1f} s, {self.images / seconds:.0f} images/s: the backbones took "
            f"{device:.0f} % of the time, waiting for images {waiting:.0f} %; decoding took "
            f"{self.decoding / seconds:.1f} of {max(self.workers, self.processes)} processes"
        )

    def advice(self, device: str, precision: str, decode: str, *, compiled: bool) -> str:
        """One line: what limits, and the option that helps."""
        cores = os.cpu_count() or 1
        if self.waiting > WAITED_LONG * self.seconds * max(1, self.processes):
            if self.workers < cores:
                advice = f"--workers {cores} would use all cores"
            elif decode == "exact":
                advice = "--decode fast resizes several times as fast, for pixels a level or two apart"
            else:
                advice = "more cores, or smaller copies of the images"
            return f"decoding is the limit: {advice}"
        if not device.startswith("cuda"):
            advice = "a GPU, or --shard on several machines"
        elif precision == "float32":
            advice = "--precision float16"
        elif not compiled:
            advice = "--compile, for a long run"
        else:
            advice = "more GPUs, or --shard on several machines"
        return f"the backbones are the limit: {advice}"
