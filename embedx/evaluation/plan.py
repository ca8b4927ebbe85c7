"""What a comparison is to do: how, and which heads can be fitted on a backbone; all that can be refused is, first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from embedx.data.manifest import Manifest
from embedx.errors import BackboneError, EmbedxError, HeadError, SplitError
from embedx.evaluation.head_spec import HeadSpec, check
from embedx.evaluation.heads import HeadRequest, head_spec
from embedx.evaluation.leaks import Leaks, leaks
from embedx.evaluation.split import Outline, Ranked, outline
from embedx.extract.prompts import class_prompts
from embedx.probes import Need
from embedx.store import FeatureCache
from embedx.workspace import Workspace


@dataclass(frozen=True)
class ComparisonSettings:
    """How to compare.

    rule        selection rule for every head; by default `default_rule` of each
    seeds       how often the heads are repeated that draw rows
    jobs        heads at a time, each in a process with its share of the processor's cores (which may round
                differently); None: one if the work is small, else one a core, at most four and as memory allows
    attributes  also tell how well each embedding predicts the attributes
    folder      where finished runs are kept
    prompts     {class: texts}, for the heads that need them
    rankings    {backbone: spuriosity ranking to use with it}, for the heads that need one
    lenient     leave out the heads that the data cannot feed, and say so, instead of refusing
    drop_leaks  leave out of train what is in val or test as well, and of val what is in test, by bytes or by subject
    """

    rule: str | None = None
    seeds: int = 1
    jobs: int | None = None
    attributes: bool = False
    folder: Path | None = None
    prompts: Mapping[str, Sequence[str]] | None = None
    lenient: bool = False
    rankings: Mapping[str, Ranked] = field(default_factory=dict)
    drop_leaks: bool = False


DEFAULTS = ComparisonSettings()


@dataclass(frozen=True, eq=False)
class Plan:
    """The heads that can be fitted on one backbone, and what they are fitted on.

    outline  the rows, joined to their labels; the features are still to be read
    refused  why the other heads cannot be fitted
    """

    outline: Outline
    leaks: Leaks
    heads: tuple[HeadSpec, ...]
    refused: tuple[EmbedxError, ...]
    ranking: Ranked | None

    @property
    def cache(self) -> FeatureCache:
        """The features."""
        return self.outline.cache


def plan(
    workspace: Workspace,
    manifest: Manifest,
    cache: FeatureCache,
    heads: Sequence[str | HeadRequest],
    settings: ComparisonSettings = DEFAULTS,
) -> Plan:
    """Check heads, by name, against the data of one backbone; reads no features.

    Raises `CacheError` or `SplitError` for data that no head can be fitted on, `UnknownName` for a head that is not
    known, and, unless the settings are lenient, the reason why a head cannot be fitted.
    """
    ranking = settings.rankings.get(cache.header.backbone)
    grouped = manifest.groups is not None
    specs = [head_spec(head, settings.rule, grouped=grouped) for head in dict.fromkeys(heads)]
    if settings.prompts and not any(Need.PROMPTS in spec.kind.needs for spec in specs):
        names = ", ".join(spec.name for spec in specs)
        raise HeadError(f"there are prompts, and {names} takes none; add --head zero-shot, or leave them out")
    shared = leaks(manifest, cache, drop=settings.drop_leaks)
    rows = outline(manifest, cache, ranking=ranking, without=shared.without)
    fitted: list[HeadSpec] = []
    refused: list[EmbedxError] = []
    prompts = None
    for spec in specs:
        try:
            if Need.PROMPTS in spec.kind.needs and settings.prompts:
                prompts = prompts or class_prompts(workspace, manifest, cache, settings.prompts)
                spec = replace(spec, prompts=prompts)  # noqa: PLW2901
            check(spec, rows.split)
            fitted.append(spec)
        except (HeadError, SplitError, BackboneError) as error:
            if not settings.lenient:
                raise
            refused.append(error)
    return Plan(rows, shared, tuple(fitted), tuple(refused), ranking)
