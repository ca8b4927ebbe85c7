"""Models by name, as `--model BACKBONE[=HEAD]` spells them: the same name is the same model in every step.

HEAD is one of
    a path that ends in .safetensors   a head that `embedx probe -o` or `embedx spuriosity tune` saved
    pretrained                         the classifier that came with the backbone, as its cache stores it
    convex, paper, code                a recipe of `discover`: its head in the folder, where it is of that recipe, else
                                       fitted as `discover` fits it first
    any other name                     a head, fitted as `embedx probe` fits it
Where no head is named: that of `discover` in the folder, if it is of that backbone; else the backbone's own classifier;
else plain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from embedx import plugins
from embedx.data.manifest import Manifest
from embedx.errors import HeadError, UnknownName
from embedx.evaluation import saved
from embedx.evaluation.heads import head_spec, needs_ranking
from embedx.evaluation.model import PRETRAINED, Model, ModelName, pretrained
from embedx.evaluation.probe import fit
from embedx.spuriosity.features import recipes
from embedx.spuriosity.records.discovery import FILE, Discovery
from embedx.spuriosity.records.ranking import beside
from embedx.store import FeatureCache
from embedx.workspace import Workspace


def completed(name: ModelName, manifest: Manifest, cache: FeatureCache, folder: Path) -> ModelName:
    """The name with its head, where none is named, and the backbone as its cache is called; fits nothing.

    folder  of the analysis. Raises `UnknownName` for a head that is another backbone, as in NAME=FAMILY:MODEL.
    """
    backbone = cache.header.backbone
    if name.head:
        family = name.head.partition(":")[0]
        if name.file is None and family != name.head and family in plugins.names(plugins.BACKBONES):
            raise UnknownName(
                f"{name}: {name.head!r} is a backbone, expected a head; a cache that was called {backbone!r} when it "
                f"was extracted is named so alone: {backbone} or {backbone}=HEAD"
            )
        return ModelName(backbone, name.head)
    discovery = _discovery(manifest, cache, folder)
    if discovery is not None:
        return ModelName(backbone, discovery.recipe)
    try:
        pretrained(manifest, cache)
    except HeadError:
        return ModelName(backbone, "plain")
    return ModelName(backbone, PRETRAINED)


def model_named(
    name: ModelName,
    manifest: Manifest,
    cache: FeatureCache,
    folder: Path,
    notice: Callable[[str], None] = lambda text: None,
) -> Model:
    """The model of that name on the features of a cache, in the classes of a manifest; what is odd goes to `notice`.

    folder  of the analysis. Raises as `completed`, `saved.load_model`, `pretrained`, `recipes.fit`, `probe.fit` and
    `Model.for_manifest` do.
    """
    name = completed(name, manifest, cache, folder)
    if name.file is not None:
        model = saved.load_model(name.file, notice)
    elif name.head == PRETRAINED:
        model = pretrained(manifest, cache)
    elif name.head in recipes.FITTED:
        discovery = _discovery(manifest, cache, folder)
        if discovery is not None and discovery.recipe == name.head:
            model = discovery.saved_head(folder, notice)
        else:
            (model,) = recipes.fit(manifest, cache, {name.head: (0,)})
    else:
        ranking = None
        if needs_ranking(head_spec(name.head)):
            ranking = beside(Workspace(cache.path.parents[1]), manifest, name.backbone)
        model = fit(manifest, cache, name.head, ranking=ranking, notice=notice)
    return replace(model.for_manifest(manifest, cache), name=name)


def _discovery(manifest: Manifest, cache: FeatureCache, folder: Path) -> Discovery | None:
    """What `discover` found in the features of this backbone, where the folder holds that."""
    if not (folder / FILE).is_file():
        return None
    discovery = Discovery.load(folder)
    ours = (discovery.dataset, discovery.backbone) == (manifest.name, cache.header.backbone) and discovery.head
    return discovery if ours else None
