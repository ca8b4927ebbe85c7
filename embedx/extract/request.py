"""An extraction as a user asks for it: backbones by name, and what is left open the machine decides."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from embedx.data.manifest import Manifest
from embedx.data.prepare import source_of
from embedx.errors import BackboneError, ExtractionError
from embedx.extract.backbones import by_name, load_backbone
from embedx.extract.devices import devices_of
from embedx.extract.engine import Progress, extract
from embedx.extract.kept import Looking
from embedx.extract.merge import Extraction
from embedx.extract.on_ray import extract_on_ray
from embedx.extract.plan import Settings
from embedx.extractors import Backbone, Decode, Precision
from embedx.workspace import Workspace

NON_COMMERCIAL = ("-nc", "noncommercial", "non-commercial")
WORKERS = 16  # a device, as far as there are cores
WORKERS_OF_A_TASK = 8  # of a Ray task that has a GPU; a task of one processor decodes by itself


@dataclass(frozen=True)
class ExtractionSettings:
    """How to extract; of all this only device, precision, batch, `decode` and `compiled` can change a bit of a feature.

    weights     local weights for the one backbone named: FILE, or FILE#NAME for one of several state dicts
    device      "cpu", "cuda", "cuda:1", or several with commas, a process each; "auto": all GPUs, else the processor
    precision   "float16" is automatic mixed precision, on CUDA only, where "auto" takes it
    decode      "fast" resizes several times as fast, and pixels may be a level or two of 255 apart
    compiled    compile the networks: worth it for long runs
    batch       images per forward pass, halved when memory does not suffice; None: 32; on a GPU what fits, at most 256
    workers     processes that decode, 0: none; None: the cores, at most 16 a device
    shard_rows  rows per shard: what a kill can cost
    max_bad     share of rows that may fail before it is an error
    part        (i, n): only the i-th of n equal parts, from 0, and no merge
    merge_only  only merge what the parts have computed
    engine      "ray": shards are tasks of a Ray cluster that shares the workspace
    ray_address of a running cluster; None: a cluster on this machine
    """

    weights: Path | None = None
    device: str = "auto"
    precision: Precision | Literal["auto"] = "auto"
    decode: Decode = "exact"
    compiled: bool = False
    batch: int | None = None
    workers: int | None = None
    shard_rows: int = 1024
    max_bad: float = 0.01
    part: tuple[int, int] | None = None
    merge_only: bool = False
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None

    def on_this_machine(self) -> Settings:
        """The settings of the engine, with what was left open decided."""
        on_ray = self.engine == "ray"
        devices = devices_of(self.device, elsewhere=on_ray)
        workers = self.workers
        if workers is None and on_ray:
            workers = WORKERS_OF_A_TASK * devices[0].startswith("cuda")
        elif workers is None:
            workers = min(WORKERS * len(devices), os.cpu_count() or 1)
        return Settings(
            devices, self.batch, workers, self.shard_rows, self.max_bad, self.decode, self.compiled,
            self.weights and Path(self.weights), self.part, self.merge_only,
        )  # fmt: skip


def extract_features(
    manifest: Manifest,
    backbones: Sequence[str],
    workspace: Workspace,
    settings: ExtractionSettings = ExtractionSettings(),
    *,
    progress: Progress = lambda done, total: None,
    looking: Looking = lambda done, total: None,
    notice: Callable[[str], None] = lambda text: None,
    spent: Callable[[str], None] | None = None,
) -> list[Extraction]:
    """Bring the feature cache of every backbone, `[NAME=]FAMILY:MODEL` or a short name, up to date.

    progress, looking  as of `engine.extract`
    notice             told of licences and of how weights were loaded
    spent              told at the end of where the time went; `notice` where it is not given

    Raises `ExtractionError` or `BackboneError` for what cannot be asked for, and what `engine.extract` raises.
    """
    names = by_name(backbones)
    if settings.weights is not None and len(names) > 1:
        raise ExtractionError(
            f"--weights goes with exactly one backbone, found {', '.join(names)}; extract the others by themselves"
        )
    engine = settings.on_this_machine()
    precision: Precision = "float16" if engine.devices[0].startswith("cuda") else "float32"
    if settings.precision != "auto":
        precision = settings.precision
    source = source_of(workspace, manifest)
    if settings.engine == "ray":  # computed elsewhere, so that the precision need not be possible here
        loaded = _placed(names, engine, "cpu", "float32", notice, compiled=False)
        loaded = {name: replace(backbone, precision=precision) for name, backbone in loaded.items()}
        results, used = extract_on_ray(
            manifest, source, loaded, workspace, engine, progress, looking, settings.ray_address
        )
    else:
        loaded = _placed(names, engine, engine.devices[0], precision, notice, compiled=engine.compiled)
        results, used = extract(manifest, source, loaded, workspace, engine, progress, looking)
    if used.images:
        tell = spent or notice
        tell(used.report())
        tell(used.advice(engine.devices[0], precision, engine.decode, compiled=engine.compiled))
    return results


def _placed(
    names: dict[str, str],
    settings: Settings,
    device: str,
    precision: Precision,
    notice: Callable[[str], None],
    *,
    compiled: bool,
) -> dict[str, Backbone]:
    """The backbones on their device, with a word on licences."""
    loaded = {name: load_backbone(spec, settings.weights, notice) for name, spec in names.items()}
    for name, b in loaded.items():
        if b.remark:
            notice(f"note: {name}: {b.remark}")
        if any(mark in b.licence.lower() for mark in NON_COMMERCIAL):
            notice(f"note: {name} is licensed for non-commercial use only ({b.licence})")
    try:
        return {name: b.placed(device, precision, settings.decode, compiled=compiled) for name, b in loaded.items()}
    except (ValueError, RuntimeError) as error:
        raise BackboneError(str(error).partition("\n")[0]) from error
