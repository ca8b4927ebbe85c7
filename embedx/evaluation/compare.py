"""Every head on every backbone, each for several seeds; what is finished is kept and not repeated."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from embedx import plugins
from embedx.data.manifest import Manifest
from embedx.errors import BackboneError, CacheError, EmbedxError, HeadError, SplitError
from embedx.evaluation.evaluate import Evaluator, HeadSpec, check, knows_groups
from embedx.evaluation.finished_runs import FILE, Finished, key, of_cache
from embedx.evaluation.leaks import Leaks, joined, leaks
from embedx.evaluation.parallel import Task, outcomes
from embedx.evaluation.runs import Run
from embedx.evaluation.selection import RULES
from embedx.evaluation.split import Ranked, Split
from embedx.extract.prompts import class_prompts
from embedx.probes import Head
from embedx.store import FeatureCache
from embedx.workspace import Workspace, slug

STANDARD = (
    "zero-shot", "nearest-mean", "plain", "class-balanced", "jtt", "afr", "bias-tuned",
    "reweighted", "group-balanced", "group-dro", "dfr",
)  # fmt: skip
"""What `compare` runs by default, as far as the data can feed it."""

Progress = Callable[[int, int, str], None]


def load_head(name: str) -> type[Head]:
    """The class of a head: in `probes/group_balanced.py` that is `GroupBalanced`. Raises `UnknownName`."""
    module = plugins.load(plugins.HEADS, name)
    stem = name.removeprefix(plugins.OUTSIDE).rpartition(".")[2]
    title = "".join(part.capitalize() for part in stem.replace("-", "_").split("_"))
    head = getattr(module, title, None)
    if not (inspect.isclass(head) and issubclass(head, Head)):
        raise HeadError(f"head {name!r}: {module.__name__} holds no Head named {title}; a head is named for its file")
    return head


def default_rule(kind: type[Head], grouped: bool = True) -> str:
    """As the head's authors choose; by the worst group only where there are groups or the head needs them anyway."""
    if kind.chosen_by == "spuriosity":
        return "spuriosity-halves"
    if knows_groups(kind) or (grouped and kind.chosen_by == "worst-group"):
        return "worst-group"
    return "average"


def entry(head: str, rule: str | None = None, *, grouped: bool = True, **more: Any) -> HeadSpec:
    """A head by name, with its default rule where none is given. Raises `UnknownName` or `HeadError`."""
    kind = load_head(head)
    return HeadSpec(head, kind, rule or default_rule(kind, grouped), **more)


def heads_for(
    manifest: Manifest, among: Sequence[str] | None = None, *, prompts: bool = False, ranked: bool = False
) -> tuple[str, ...]:
    """The heads that the data can feed, of `among`, by default of the standard ones.

    `prompts` says there are some, `ranked` that there is a spuriosity ranking.
    """
    known = plugins.names(plugins.HEADS)
    named = [h for h in (STANDARD if among is None else among) if h in known]
    kinds = {h: load_head(h) for h in named}
    return tuple(
        h
        for h, kind in kinds.items()
        if (manifest.groups is not None or not knows_groups(kind))
        and (prompts or "prompts" not in kind.needs)
        and (ranked or "spuriosity" not in kind.needs)
    )


def every_head(manifest: Manifest, *, prompts: bool = False, ranked: bool = False) -> tuple[str, ...]:
    """Every head in `probes` that the data can feed."""
    return heads_for(manifest, plugins.names(plugins.HEADS), prompts=prompts, ranked=ranked)


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
    one = entry(head, rule, grouped=split.has_groups, settings=settings, prompts=prompts)
    check(one, split)
    return Evaluator(split).runs_and_heads(one, [seed])[0]


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
) -> list[tuple[Run, Head]]:  # fmt: skip
    """One head on one backbone, for every seed that changes it; checks first, and tells of images in two splits.

    drop_leaks  leave those out of the earlier split
    """
    rankings = {} if ranking is None else {cache.header.backbone: ranking}
    options = ComparisonSettings(rule, prompts=prompts, rankings=rankings, drop_leaks=drop_leaks)
    ((one,), _) = _plan(workspace, manifest, cache, [head], options)
    found = leaks(manifest, cache, drop=drop_leaks)
    for line in found.remarks():
        notice(line)
    bench = Evaluator(joined(manifest, cache, drop=drop_leaks, ranking=ranking))
    return bench.runs_and_heads(one, range(seeds if one.repeats else 1), found.facts())


def open_cache(workspace: Workspace, manifest: Manifest, backbone: str) -> FeatureCache:
    """One backbone's features. Raises `CacheError` that names the cached backbones when there are none of this one."""
    cached = workspace.backbones(manifest.name)
    if slug(backbone) not in cached:
        raise CacheError(
            f"{manifest.name} has no features of {backbone!r}: {plugins.nearest(slug(backbone), cached)}; "
            f"make them with `embedx extract {manifest.name} -b {backbone}`"
        )
    cache = FeatureCache.open_complete(workspace.cache(manifest.name, backbone))
    if slug(cache.header.backbone) != slug(backbone):
        raise CacheError(
            f"{cache.path} holds features of {cache.header.backbone!r}, not of {backbone!r}: the file was renamed or "
            f"copied; call it {slug(cache.header.backbone)}.h5 again"
        )
    return cache


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


def compare(
    workspace: Workspace,
    manifest: Manifest,
    backbones: Sequence[str],
    heads: Sequence[str],
    options: ComparisonSettings = ComparisonSettings(),
    *,
    progress: Progress = lambda done, total, what: None,
    notice: Callable[[str], None] = lambda text: None,
) -> list[Run]:
    """Every head on every backbone; heads that draw rows or share validation once per seed, the others once.

    Everything that can be refused is refused before the first fit, and images in two splits are told through `notice`.
    A head whose method fails on the data is told there as well and left out; when all fail, `HeadError`.
    """
    opened = [open_cache(workspace, manifest, backbone) for backbone in backbones]
    caches = {cache.header.backbone: cache for cache in opened}  # once each, however often it was named
    twins = {backbone: leaks(manifest, cache, drop=options.drop_leaks) for backbone, cache in caches.items()}
    plans, refused = {}, []
    for backbone, cache in caches.items():
        plans[backbone], errors = _plan(workspace, manifest, cache, heads, options)
        refused += errors
    if refused and not any(plans.values()):
        raise refused[0]
    for text in dict.fromkeys(map(str, refused)):
        notice(f"note: left out: {text}")
    for line in dict.fromkeys(line for found in twins.values() for line in found.remarks()):
        notice(line)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    kept = Finished(options.folder and options.folder / FILE)
    wanted, left = _tasks(manifest, caches, plans, twins, options, kept)
    places, tasks, failed = list(left), list(left.values()), dict[int, HeadError]()
    names, before = [*(task.name for task in tasks), ""], len(wanted) - len(tasks)
    progress(before, len(wanted), names[0])
    for done, (i, found) in enumerate(outcomes(tasks, options.jobs), 1):
        if isinstance(found, HeadError):
            failed[places[i]] = found
        else:
            kept.add([(wanted[places[i]][run.seed], run) for run in found])
        progress(before + done, len(wanted), names[done])
    failures = [failed[place] for place in sorted(failed)]
    for error in failures:
        notice(f"note: left out: {error}")
    if failed and len(failed) == len(wanted):
        raise failures[0]
    return [kept.known[k] for place, keys in enumerate(wanted) if place not in failed for k in keys.values()]


def _tasks(
    manifest: Manifest,
    caches: Mapping[str, FeatureCache],
    plans: Mapping[str, Sequence[HeadSpec]],
    twins: Mapping[str, Leaks],
    options: ComparisonSettings,
    kept: Finished,
) -> tuple[list[dict[int, str]], dict[int, Task]]:
    """The keys, by seed, of every head on every backbone, and the tasks that are left, by their places among these."""
    comparison, wanted, left = uuid4().hex, list[dict[int, str]](), dict[int, Task]()
    for backbone, cache in caches.items():
        data = of_cache(cache, manifest.digest) | {"attributes": options.attributes, "drop_leaks": options.drop_leaks}
        ranking, extra = options.rankings.get(backbone), twins[backbone].facts()
        for one in plans[backbone]:
            mine = data if ranking is None or not needs_ranking(one) else data | {"ranking": _digest(ranking)}
            keys = {seed: key(one, seed, mine) for seed in range(options.seeds if one.repeats else 1)}
            if seeds := [seed for seed in keys if keys[seed] not in kept.known]:
                left[len(wanted)] = Task(
                    comparison, manifest, cache, ranking, one, seeds, options.attributes, extra, options.drop_leaks
                )
            wanted.append(keys)
    return wanted, left


def _digest(ranking: Ranked) -> str:
    """Of all that reaches a record: the scores, and what they took."""
    return hashlib.sha256(ranking.scores.tobytes() + ranking.supervision.encode()).hexdigest()


def needs_ranking(one: HeadSpec) -> bool:
    """Whether a head is fitted or chosen by a spuriosity ranking."""
    return "spuriosity" in one.kind.needs or (one.rule in RULES and RULES[one.rule].over == "spuriosity")


def _plan(
    workspace: Workspace, manifest: Manifest, cache: FeatureCache, heads: Sequence[str], options: ComparisonSettings
) -> tuple[list[HeadSpec], list[EmbedxError]]:
    """The heads that can be fitted on one backbone, and why the others cannot; the first reason is raised if strict."""
    entries, refused = (
        [entry(head, options.rule, grouped=manifest.groups is not None) for head in dict.fromkeys(heads)],
        [],
    )
    if options.prompts and not any("prompts" in one.kind.needs for one in entries):
        raise HeadError(
            f"there are prompts, and {', '.join(heads)} takes none; add --head zero-shot, or leave them out"
        )
    ranking = options.rankings.get(cache.header.backbone)
    outline = joined(manifest, cache, drop=options.drop_leaks, features=False, ranking=ranking)
    known, prompts = [], None
    for one in entries:
        try:
            if "prompts" in one.kind.needs and options.prompts:
                prompts = prompts or class_prompts(workspace, manifest, cache, options.prompts)
                one = replace(one, prompts=prompts)  # noqa: PLW2901
            check(one, outline)
            known.append(one)
        except (HeadError, SplitError, BackboneError) as error:
            if not options.lenient:
                raise
            refused.append(error)
    return known, refused
