"""Every head on every backbone, each for several seeds; what is finished is kept and not repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import uuid4

from embedx.data.manifest import Manifest
from embedx.errors import HeadError
from embedx.evaluation import runs as records
from embedx.evaluation.finished_runs import FILE, Finished, key, of_cache
from embedx.evaluation.heads import ALL, HeadRequest, heads_asked, needs_ranking
from embedx.evaluation.parallel import Task, outcomes, split_at_hand
from embedx.evaluation.plan import DEFAULTS, ComparisonSettings, Plan, plan
from embedx.evaluation.runs import Runs
from embedx.evaluation.split import Ranked, Split
from embedx.store import open_caches
from embedx.workspace import Workspace

Progress = Callable[[int, int, str], None]


def compare(
    workspace: Workspace,
    manifest: Manifest,
    backbones: Sequence[str] = (),
    heads: Sequence[str | HeadRequest] = (),
    settings: ComparisonSettings = DEFAULTS,
    *,
    progress: Progress = lambda done, total, what: None,
    notice: Callable[[str], None] = lambda text: None,
    with_split: Callable[[Split], None] | None = None,
) -> Runs:
    """Every head on every backbone; heads that draw rows or share validation once per seed, the others once.

    backbones   by default every one that is cached
    heads       by default the standard ones that the data can feed, with "all" every one that it can feed; of these
                those are left out that turn out not to be fed, and `notice` is told
    with_split  called once for each backbone that has runs, with its labels and features while they are in memory;
                they are read a second time only where no head was fitted on them in this process

    Everything that can be refused is refused before the first fit, and images in two splits are told through `notice`.
    A head whose method fails on the data is told there as well and left out; when all fail, `HeadError`.
    Raises `ResultsError` for a folder of single runs, which a comparison would replace.
    """
    if settings.folder is not None:
        settings.folder.mkdir(parents=True, exist_ok=True)  # before the work, in case it cannot be written
        records.require(settings.folder, comparison=True)
    plans = _plans(workspace, manifest, backbones, heads, settings, notice)
    finished = Finished(settings.folder and settings.folder / FILE)
    wanted, left = _tasks(manifest, plans, settings, finished)
    awaited = {} if with_split is None else {p.cache.header.backbone: p.outline for p in plans}
    places, tasks, failed = list(left), list(left.values()), dict[int, HeadError]()
    names, before = [*(task.name for task in tasks), ""], len(wanted) - len(tasks)
    progress(before, len(wanted), names[0])
    for done, (i, outcome) in enumerate(outcomes(tasks, settings.jobs), 1):
        if isinstance(outcome, HeadError):
            failed[places[i]] = outcome
        else:
            finished.add([(wanted[places[i]][run.seed], run) for run in outcome])
            backbone = tasks[i].backbone
            if with_split is not None and backbone in awaited and (split := split_at_hand(tasks[i])) is not None:
                del awaited[backbone]
                with_split(split)
        progress(before + done, len(wanted), names[done])
    failures = [failed[place] for place in sorted(failed)]
    for error in failures:
        notice(f"note: left out: {error}")
    if failed and len(failed) == len(wanted):
        raise failures[0]
    runs = Runs(finished.runs[k] for place, keys in enumerate(wanted) if place not in failed for k in keys.values())
    if with_split is not None:
        for backbone in dict.fromkeys(run.backbone for run in runs if run.backbone in awaited):
            with_split(awaited[backbone].read())
    return runs


def _plans(
    workspace: Workspace,
    manifest: Manifest,
    backbones: Sequence[str],
    heads: Sequence[str | HeadRequest],
    settings: ComparisonSettings,
    notice: Callable[[str], None],
) -> list[Plan]:
    """A plan for every backbone; raises what can be refused, and tells what is left out and what leaks."""
    caches = open_caches(workspace, manifest, backbones)
    if not heads or ALL in heads:
        settings = replace(settings, lenient=True)
    names = heads_asked(manifest, heads, prompts=bool(settings.prompts), ranked=bool(settings.rankings))
    plans = [plan(workspace, manifest, cache, names, settings) for cache in caches.values()]
    refused = [error for p in plans for error in p.refused]
    if refused and not any(p.heads for p in plans):
        raise refused[0]
    for text in dict.fromkeys(map(str, refused)):
        notice(f"note: left out: {text}")
    for line in dict.fromkeys(line for p in plans for line in p.leaks.remarks()):
        notice(line)
    return plans


def _tasks(
    manifest: Manifest, plans: Sequence[Plan], settings: ComparisonSettings, finished: Finished
) -> tuple[list[dict[int, str]], dict[int, Task]]:
    """The keys, by seed, of every head on every backbone, and the tasks that are left, by their places among these."""
    comparison, wanted, left = uuid4().hex, list[dict[int, str]](), dict[int, Task]()
    asked = {"attributes": settings.attributes, "drop_leaks": settings.drop_leaks}
    for p in plans:
        data = of_cache(p.cache, manifest.digest) | asked
        for spec in p.heads:
            mine = data
            if p.ranking is not None and needs_ranking(spec):
                mine = data | {"ranking": _digest(p.ranking)}
            keys = {seed: key(spec, seed, mine) for seed in range(settings.seeds if spec.repeats else 1)}
            if seeds := [seed for seed in keys if keys[seed] not in finished.runs]:
                left[len(wanted)] = Task(comparison, p.outline, spec, seeds, settings.attributes, p.leaks.facts())
            wanted.append(keys)
    return wanted, left


def _digest(ranking: Ranked) -> str:
    """Of all that reaches a record: the scores, and what they took."""
    return hashlib.sha256(ranking.scores.tobytes() + ranking.supervision.encode()).hexdigest()
