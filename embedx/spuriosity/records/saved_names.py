"""What records of earlier versions call a saved head: its file's name alone, without folder and suffix."""

from __future__ import annotations

from collections.abc import Iterable

from embedx import plugins
from embedx.evaluation.model import ModelName
from embedx.spuriosity.features.recipes import RECIPES


def names_before(models: Iterable[ModelName]) -> dict[str, str]:
    """{what earlier versions called a model: what it is called now}, of saved heads.

    A file that is called like a head, a recipe or `pretrained` is left out: there the old name may mean that head.
    """
    heads = {*plugins.names(plugins.HEADS), *RECIPES}
    files = (name for name in models if name.file is not None and name.short not in heads)
    return {f"{name.backbone}={name.short}": str(name) for name in files}
