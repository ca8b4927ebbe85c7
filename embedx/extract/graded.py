"""Weights of networks that are trained here: once, when first asked for, and then kept beside downloaded ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

from embedx.extractors.tiny import Grade
from embedx.files import locked

VERSION = 1
"""Changes whenever another training would come of the same name, so that weights of before are not taken for it."""


def weights_of(
    plugin: ModuleType, model: str, weights: Path | None, notice: Callable[[str], None] = lambda text: None
) -> Path | None:
    """The file of weights to load: the one given, or of a family with grades the one trained for the model.

    It lies where torch keeps what it downloads. Sums depend a little on the processor: where several machines work
    together, they share that folder, or one trains and the others are given its file.
    """
    named = plugin.grade(model) if weights is None and hasattr(plugin, "grade") else None
    if not isinstance(named, Grade):
        return weights
    import torch

    facts = json.dumps([VERSION, asdict(named)], sort_keys=True)
    name = f"embedx-{plugin.__name__.rpartition('.')[2]}-{model}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"
    file = Path(torch.hub.get_dir()) / "checkpoints" / f"{name}.safetensors"
    if not file.exists():
        from embedx.extract import pretrain

        file.parent.mkdir(parents=True, exist_ok=True)
        with locked(file):  # of several processes one trains, the others find it done
            if not file.exists():
                notice(f"note: {model} is trained now, which is done once; its weights are kept in {file.parent}")
                pretrain.train_grade(model, named, file)
    return file
