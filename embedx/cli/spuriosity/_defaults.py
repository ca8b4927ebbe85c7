"""What several steps take where nothing is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedx.data.manifest import Manifest
    from embedx.evaluation.saved import SavedHead
    from embedx.spuriosity.records.ranking import Ranking
    from embedx.store import FeatureCache
    from embedx.workspace import Workspace


def head_of(manifest: Manifest, cache: FeatureCache, named: str, folder: Path) -> tuple[SavedHead | str, str]:
    """The head that BACKBONE=HEAD names, and how it is called: the file of a saved one, or a name.

    Where nothing is named: the head of `discover`, else the backbone's own classifier, else plain.
    """
    from embedx.cli._output import remark
    from embedx.evaluation import saved

    if (file := Path(named)).suffix == saved.SUFFIX:
        return saved.load(file, remark), file.stem
    head = named or _default(manifest, cache, folder)
    return head, head if isinstance(head, str) else str(head.run["head"])


def _default(manifest: Manifest, cache: FeatureCache, folder: Path) -> SavedHead | str:
    from embedx.cli._output import remark
    from embedx.errors import HeadError
    from embedx.spuriosity.measures.predictions import PRETRAINED, Linear
    from embedx.spuriosity.records.discovery import FILE, Discovery

    if (folder / FILE).is_file():
        discovery = Discovery.load(folder)
        if (discovery.dataset, discovery.backbone) == (manifest.name, cache.header.backbone) and discovery.head:
            return discovery.saved_head(folder, remark)
    try:
        Linear.pretrained(manifest, cache)
    except HeadError:
        return "plain"
    return PRETRAINED


def ranking_of(workspace: Workspace, manifest: Manifest, backbone: str, folder: Path) -> Ranking:
    """The ranking beside the backbone's cache; one by features of other weights is refused, an outdated one told."""
    from embedx.cli._output import remark
    from embedx.evaluation.compare import open_cache
    from embedx.spuriosity import annotations
    from embedx.spuriosity.records.ranking import Ranking, place
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
