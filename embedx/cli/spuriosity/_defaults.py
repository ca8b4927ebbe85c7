"""What several steps take where nothing is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedx.data.manifest import Manifest
    from embedx.evaluation.model import Model, ModelName
    from embedx.spuriosity.records.ranking import Ranking
    from embedx.store import FeatureCache
    from embedx.workspace import Workspace


def models_of(
    workspace: Workspace, manifest: Manifest, names: Sequence[ModelName], backbone: str, folder: Path
) -> list[tuple[ModelName, FeatureCache]]:
    """Each model once, by its whole name, with the cache of its backbone; fits nothing.

    Where none is named it is that of `backbone`. Raises as `open_cache` and `completed` do.
    """
    from embedx.evaluation.model import ModelName
    from embedx.spuriosity.models import completed
    from embedx.store import open_cache

    models: dict[ModelName, FeatureCache] = {}
    for name in names or (ModelName(backbone),):
        cache = open_cache(workspace, manifest, name.backbone)
        models.setdefault(completed(name, manifest, cache, folder), cache)
    return list(models.items())


def head_of(manifest: Manifest, cache: FeatureCache, name: ModelName, folder: Path) -> Model:
    """The model of that name, see `embedx.spuriosity.models`; what is odd about it is told."""
    from embedx.cli._output import remark
    from embedx.spuriosity.models import model_named

    return model_named(name, manifest, cache, folder, remark)


def ranking_of(workspace: Workspace, manifest: Manifest, backbone: str, folder: Path) -> Ranking:
    """The ranking beside the backbone's cache; one by features of other weights is refused, an outdated one told."""
    from embedx.cli._output import remark
    from embedx.spuriosity import annotations
    from embedx.spuriosity.records.ranking import Ranking, place
    from embedx.store import open_cache
    from embedx.workspace import slug

    path, said = place(workspace, manifest.name, backbone), folder / annotations.FILE
    ranking = Ranking.load(path, manifest)
    if ranking.features and slug(backbone) in workspace.backbones(manifest.name):
        ranking.check(open_cache(workspace, manifest, backbone))
        cues = annotations.spurious(annotations.read(said, remark), ranking.min_votes) if said.is_file() else None
        if cues not in (None, ranking.features):
            remark(
                f"note: {said} calls other features spurious than those that ranked; `embedx spuriosity rank "
                f"{manifest.name} -b {backbone}` brings the ranking up to date"
            )
    return ranking
