"""One head on one backbone: the record and the fitted head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from embedx.data.manifest import Manifest
from embedx.evaluation.evaluate import Evaluator
from embedx.evaluation.head_spec import check
from embedx.evaluation.heads import head_spec
from embedx.evaluation.model import Model
from embedx.evaluation.plan import ComparisonSettings, plan
from embedx.evaluation.runs import Run
from embedx.evaluation.selection import in_words
from embedx.evaluation.split import Ranked, Split
from embedx.probes import Head
from embedx.store import FeatureCache
from embedx.workspace import Workspace


def probe(
    split: Split,
    head: str,
    *,
    rule: str | None = None,
    seed: int = 0,
    settings: Sequence[Mapping[str, Any]] | None = None,
    prompts: Any = None,
) -> tuple[Run, Head]:
    """Fit `head` for every setting (by default its grid), choose one on validation, report it on test.

    rule  name of the selection rule; by default `default_rule`
    Returns the record and the fitted head. Raises `UnknownName`, `HeadError` or `SplitError` before fitting,
    `HeadError` when fitting fails.
    """
    spec = head_spec(head, rule, grouped=split.has_groups, settings=settings, prompts=prompts)
    check(spec, split)
    return Evaluator(split).runs_and_heads(spec, [seed])[0]


def probe_cache(  # noqa: PLR0913
    workspace: Workspace,
    manifest: Manifest,
    cache: FeatureCache,
    head: str,
    *,
    rule: str | None = None,
    seeds: int = 1,
    prompts: Mapping[str, Sequence[str]] | None = None,
    ranking: Ranked | None = None,
    drop_leaks: bool = False,
    notice: Callable[[str], None] = lambda text: None,
) -> list[Model]:  # fmt: skip
    """One head on one backbone, with its record, for every seed that changes it; tells of images in two splits.

    drop_leaks  leave those out of the earlier split

    Raises `UnknownName`, `HeadError` or `SplitError` before fitting, `HeadError` when fitting fails.
    """
    rankings = {} if ranking is None else {cache.header.backbone: ranking}
    settings = ComparisonSettings(rule, prompts=prompts, rankings=rankings, drop_leaks=drop_leaks)
    checked = plan(workspace, manifest, cache, [head], settings)
    for line in checked.leaks.remarks():
        notice(line)
    (spec,) = checked.heads
    evaluator = Evaluator(checked.outline.read())
    fitted = evaluator.runs_and_heads(spec, range(seeds if spec.repeats else 1), checked.leaks.facts())
    return [Model.of(head, run, cache, manifest.classes) for run, head in fitted]


def fit(
    manifest: Manifest,
    cache: FeatureCache,
    head: str,
    *,
    prompts: Mapping[str, Sequence[str]] | None = None,
    ranking: Ranked | None = None,
    notice: Callable[[str], None] = lambda text: None,
) -> Model:
    """The model of a head by name, as `embedx probe` fits and chooses it for the first seed; raises as `probe_cache`.

    prompts  {class: texts}, for the heads that need them; ranking: likewise
    notice   is told of images in two splits, and of classes and groups that hardly any row chose for
    """
    workspace = Workspace(cache.path.parents[1])  # where the features of prompts lie as well
    model = probe_cache(workspace, manifest, cache, head, prompts=prompts, ranking=ranking, notice=notice)[0]
    for line in in_words(model.record.selection, model.record.barely_seen):
        notice(f"note: {line}")
    return model
