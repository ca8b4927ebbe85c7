"""Tuning an existing head on the least spurious training rows: does it close the gap, and what does it cost?

For each choice of tuning rows (lowest spuriosity, and the baselines random, misclassified, highest) a whole front of
heads is fitted, from hardly tuned to tuned the most (`probes/low_spuriosity.py`), for several trials. On the STOP rows,
validation or half of it, the least tuned head is taken whose mean gap over classes lies within the target on either
side of 0, the untouched head being the first; where none does, the one whose gap is nearest to 0. Only then is test
looked at. Whether it was worth it is asked of validation, without group labels, see `evidence`; where that speaks
against it, the head stays as it was. After Moayeri et al., "Spuriosity Rankings", NeurIPS 2023, section 4.3 and
appendix F.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedx.data.manifest import Manifest
from embedx.errors import HeadError, SplitError, SpuriosityError
from embedx.evaluation.by_rule import predicted
from embedx.evaluation.evaluate import Evaluator
from embedx.evaluation.head_spec import HeadSpec, check
from embedx.evaluation.heads import head_spec
from embedx.evaluation.model import Model
from embedx.evaluation.runs import Run
from embedx.evaluation.selection import RULES, barely_seen, in_words
from embedx.evaluation.split import Part, Split, join, ranked
from embedx.probes import FitError, Labels, On, Purpose, Supervision, supervision_in_words
from embedx.probes.low_spuriosity import LowSpuriosity
from embedx.spuriosity.measures.changes import share, weighted, worst
from embedx.spuriosity.measures.evidence import Check, Evidence, evidence
from embedx.spuriosity.measures.gaps import gaps
from embedx.spuriosity.measures.predictions import Predictions
from embedx.spuriosity.measures.ranked_rows import RankedRows
from embedx.spuriosity.measures.stopping import Judged, finer, halved, recovered, stopped
from embedx.spuriosity.measures.tuned import Point, Result, Rival, Tuning
from embedx.spuriosity.measures.tuning_settings import TuningSettings
from embedx.store import FeatureCache

if TYPE_CHECKING:
    from embedx.spuriosity.records.ranking import Ranking

NAME = "low-spuriosity"
UNTOUCHED = "untouched"
POSITIONS = 20
AS_IT_WAS = {"recipe": "sgd", "epochs": 0}
DEFAULT = TuningSettings()


def tune_head(
    manifest: Manifest,
    cache: FeatureCache,
    ranking: Ranking,
    model: Model | None = None,
    options: TuningSettings = DEFAULT,
    *,
    second: Second | None = None,
    notice: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> tuple[Tuning, Model]:
    """Tune a model on a cache in every way of `options.rows`; the tuned model is of the first way and its first trial.

    model   None: the head plain, fitted on train and chosen on the rows that choose (of `options.halve` half of
            validation)
    second  another ranking to check the first choice of rows by

    Raises `SpuriosityError` where no class has two ranked rows to stop or report on, or a positive gap; `HeadError` for
    a head that is not linear or cannot be tuned, and `ProvenanceError` for a model of another backbone.
    """
    model = None if model is None else _able(model.for_manifest(manifest, cache), options)
    split = join(manifest, cache, ranking=ranking)
    choosing, stop = halved(split.val) if options.halve else (split.val, split.val)
    bench = Evaluator(replace(split, val=choosing))
    start, every = model or plain(manifest, cache, bench, notice), ranking
    stopping = "half of validation" if options.halve else "validation"
    for line in in_words("the gap", barely_seen(RULES["average"], split, stop), stopping):
        notice(f"note: {line}")
    before, aside = _judged(start, split, stop, "val", ranking, options), ()
    if options.classes == "positive" and (aside := before.not_positive()):
        ranking = _positive(ranking, before, aside)
        split = ranked(split, ranking)
        before, bench = _judged(start, split, stop, "val", ranking, options), Evaluator(replace(split, val=choosing))
    test = _judged(start, split, split.test, "test", ranking, options)
    plan = _Plan(manifest, ranking, bench, before, test, options)
    results, said = [plan.before()], None
    for done, rows in enumerate(options.rows):
        progress(done, len(options.rows) + 1, f"{cache.header.backbone}  {rows}")
        front = plan.front(rows, start)
        results.append(plan.result(rows, front))
        said = plan.evidence(front, every, second, aside, start) if not done else said
    progress(len(options.rows), len(options.rows) + 1, f"{cache.header.backbone}  other heads")
    tuning = Tuning(
        manifest.name, start.name.backbone, start.name.head, ranking.backbone, options,
        stopping,
        {"train": len(split.train), "stop": len(stop), "test": len(split.test)},
        tuple(manifest.classes[c] for c in plan.test.classes), tuple(results),
        recovered(split.train, manifest.classes) if split.has_groups else {},
        tuple(plan.rivals(notice)) if split.has_groups else (), tuple(manifest.classes[c] for c in aside),
        ranking.supervision, supervision_in_words(start.run.supervision) if start.run else "", said,
        kept=options.keep and said is not None and bool(said.against),
    )  # fmt: skip
    run, tuned = plan.record(results[1], start, kept=tuning.kept)
    return tuning, Model.of(tuned, run, cache, manifest.classes)


def _able(model: Model, options: TuningSettings) -> Model:
    """The model, where it can be tuned: refused before any work."""
    _ = model.linear
    if options.halve and model.run is not None:
        raise SpuriosityError(
            f"{model.name} was chosen on all of validation, so no half of it is left to stop on; leave halve out, "
            "or give no model: plain is then chosen on the other half"
        )
    return model


def _judged(start: Model, split: Split, part: Part, name: str, ranking: Ranking, options: TuningSettings) -> Judged:
    """Rows of the split called `name`, with what the head before tuning predicts on them."""
    facts = (split.dataset, split.backbone, UNTOUCHED, name, split.classes, part.ids, part.y, start.predict(part.X))
    return Judged.of(ranking, part, Predictions(*facts, split.left_out[name]), options.measured)


def _positive(ranking: Ranking, before: Judged, aside: Sequence[int]) -> Ranking:
    """The ranking without the classes `aside`, whose gap is not positive before tuning."""
    if len(aside) == len(before.classes):
        raise SpuriosityError(
            f"{before.before.backbone}: in none of the {len(aside)} classes with a ranking is the gap on "
            f"{len(before.part):,} validation images positive, so there is none to close; see `embedx spuriosity gap`, "
            "or tune on all of them with --published"
        )
    return _less(ranking, aside)


def _less(ranking: Ranking, aside: Sequence[int]) -> Ranking:
    """The ranking without some classes."""
    return replace(ranking, scores=np.where(np.isin(ranking.labels, aside), np.nan, ranking.scores))


def plain(manifest: Manifest, cache: FeatureCache, bench: Evaluator, notice: Callable[[str], None]) -> Model:
    """The head plain on the rows of a bench; classes that hardly any row chose for are told."""
    one = head_spec("plain", grouped=bench.split.has_groups)
    check(one, bench.split)
    ((run, head),) = bench.runs_and_heads(one, [0])
    for line in in_words(run.selection, run.barely_seen):
        notice(f"note: {line}")
    return Model.of(head, run, cache, manifest.classes)


@dataclass(frozen=True, eq=False)
class Second:
    """Another ranking; `tuned_by`: the one to tune by for it, where it is made of features that the first has, too."""

    ranking: Ranking
    tuned_by: Ranking | None = None


@dataclass(frozen=True, eq=False)
class _Front:
    """Heads of one choice of rows: settings, the first the head before tuning, and codes (trials, settings, n)."""

    tuned_on: int
    settings: list[dict[str, Any]]
    stop: np.ndarray
    test: np.ndarray


STOP = Supervision(Labels.SPURIOSITY, On.VALIDATION, Purpose.STOP)


@dataclass(frozen=True, eq=False)
class _Plan:
    manifest: Manifest
    ranking: Ranking
    bench: Evaluator
    stop: Judged
    test: Judged
    options: TuningSettings

    def before(self) -> Result:
        """The head before tuning."""
        gap = float(self.stop.gaps(self.stop.hits(self.stop.untouched))[0])
        met = int(stopped([gap], self.options.target)[1])
        return self._result(UNTOUCHED, self.test.untouched, (), tuned_on=0, met=met, settings=({},), stop_gap=(gap,))

    def front(self, rows: str, start: Model) -> _Front:
        """One choice of tuning rows: all trials and settings solved together."""
        head = self._head(rows, start)
        # Untouched is there already; without seeds to matter, one trial is all.
        front = [s for s in head.front() if s.get("epochs") != 0]
        drawn = self.options.recipe == "sgd" or rows in ("random", "misclassified") or self.options.others
        trials = self.options.trials if drawn else 1
        tuned_on, stop, test = self._codes(head, front, trials)
        if self.options.recipe == "convex":
            whole = np.concatenate([np.broadcast_to(self.stop.untouched, (trials, 1, stop.shape[2])), stop], axis=1)
            stop_gaps = [self.stop.gaps(self.stop.hits(c)) for c in whole]
            if extra := finer([s["C"] for s in front], stop_gaps, self.options.target):
                _, *more = self._codes(head, [{"C": C} for C in extra], trials)
                front += [{"C": C} for C in extra]
                order = np.argsort([s["C"] for s in front], kind="stable")
                front = [front[i] for i in order]
                stop, test = (np.concatenate(both, axis=1)[:, order] for both in zip((stop, test), more, strict=True))
        whole = [
            np.concatenate([np.broadcast_to(of.untouched, (trials, 1, len(of.part))), codes], axis=1)
            for of, codes in ((self.stop, stop), (self.test, test))
        ]
        return _Front(tuned_on, [{}, *front], *whole)

    def result(self, rows: str, front: _Front) -> Result:
        """The heads of a front, stopped and reported."""
        hits = [of.hits(codes) for of, codes in ((self.stop, front.stop), (self.test, front.test))]
        stop_gap, gap = (
            np.array([of.gaps(h) for h in of_rows]) for of, of_rows in zip((self.stop, self.test), hits, strict=True)
        )
        stop_average, average = (of_rows.mean(axis=2) for of_rows in hits)
        chosen, settings = [stopped(g, self.options.target) for g in stop_gap], front.settings
        points = [
            Point(s, t, *(float(x[t, i]) for x in (stop_gap, stop_average, gap, average)))
            for t in range(len(chosen))
            for i, s in enumerate(settings)
        ]
        return self._result(
            rows, np.array([front.test[t, i] for t, (i, _) in enumerate(chosen)]), tuple(points),
            tuned_on=front.tuned_on, met=sum(met for _, met in chosen), settings=tuple(settings[i] for i, _ in chosen),
            stop_gap=tuple(float(stop_gap[t, i]) for t, (i, _) in enumerate(chosen)),
        )  # fmt: skip

    def evidence(
        self, front: _Front, every: Ranking, second: Second | None, aside: Sequence[int], start: Model
    ) -> Evidence | None:
        """What the stop rows say of the first choice; every: the ranking with the classes that are set aside."""
        about = (self.stop, self.ranking, every, front.stop, self.options)
        if second is None:
            return evidence(*about)
        codes, by = front.stop, self.ranking
        if second.tuned_by is not None:
            by = _less(second.tuned_by, aside)
            try:
                stop = Judged.of(by, self.stop.part, self.stop.before, self.options.measured)
                half = replace(self, ranking=by, bench=Evaluator(ranked(self.bench.split, by)), stop=stop)
                codes = half.front(self.options.rows[0], start).stop
            except (SpuriosityError, HeadError):  # it ranks no class that is tuned on
                return evidence(*about)
        return evidence(*about, second=Check(second.ranking, by, codes))

    def _codes(
        self, head: LowSpuriosity, settings: Sequence[Mapping[str, Any]], trials: int
    ) -> tuple[int, np.ndarray, np.ndarray]:
        """How many rows a trial is tuned on; (trials, settings, n) codes predicted for the stop rows and for test."""
        part = self.bench.split.train
        try:
            heads = head.path(
                self.bench.features(part, bool(head.standardize)), part.y,
                [{**s, "random_state": trial} for trial in range(trials) for s in settings], spuriosity=part.spuriosity,
                clusters=part.subjects,
            )  # fmt: skip
        except FitError as error:
            raise HeadError(f"tuning on {head.rows} rows of {self.bench.split.backbone}: {error}") from error
        shape = (trials, len(settings), -1)
        stop, test = (predicted(heads, of.part.X).reshape(shape) for of in (self.stop, self.test))
        return len(heads[0].tuning_rows_), stop, test

    def _result(self, rows: str, codes: np.ndarray, front: tuple[Point, ...], **facts: Any) -> Result:
        """Figures on test of the codes (trials, n) that a head predicts in each trial."""
        test, split, part = self.test, self.bench.split, self.test.part
        hits, before = test.hits(codes), None if rows == UNTOUCHED else test.hits(test.untouched)[0].astype(float)
        hits = hits.astype(float)
        average = share(hits, before, np.arange(len(part)), part.subjects)
        assert average is not None
        lowest, label = worst(hits, before, part.y, part.subjects)
        group, at = worst(hits, before, part.groups, part.subjects) if split.has_groups else (None, 0)
        made = [self._predictions(c, rows) for c in codes]
        positions = RankedRows.of(self.ranking, made).by_position(POSITIONS).mean(axis=(0, 1))
        return Result(
            rows=rows, trials=len(codes), gap=weighted(hits, before, test.strata, part.subjects), average=average,
            worst_class=lowest, worst_class_name=split.classes[label],
            untouched=share(hits, before, np.flatnonzero(~np.isin(part.y, test.classes)), part.subjects),
            worst_group=group, worst_group_name=split.group_names[at] if group else "",
            positions=tuple(float(p) for p in positions),
            detail=gaps(self.ranking, made[0], self.options.measured), front=front, **facts,
        )  # fmt: skip

    def _predictions(self, codes: np.ndarray, head: str) -> Predictions:
        return replace(self.test.before, head=head, predicted=codes)

    def _head(self, rows: str, start: Model) -> LowSpuriosity:
        n = start.affine
        return LowSpuriosity(
            k=self.options.k, rows=rows, classes="all" if self.options.others else "ranked",
            start=(n.coef, n.intercept, n.mean, n.scale), recipe=self.options.recipe,
            standardize=self.options.recipe == "convex",
        )  # fmt: skip

    def rivals(self, notice: Callable[[str], None]) -> list[Rival]:
        """Other heads on the same rows; what cannot be fitted is told and left out."""
        rivals = []
        for name in self.options.beside:
            try:
                one = head_spec(name, grouped=True)
                check(one, self.bench.split)
                run, head = self.bench.runs_and_heads(one, [0])[0]
            except (HeadError, SplitError) as error:
                notice(f"note: left out: {error}")
                continue
            m, hits = run.metrics, self.test.hits(predicted([head], self.test.part.X)).astype(float)
            before = self.test.hits(self.test.untouched)[0].astype(float)
            gap = weighted(hits, before, self.test.strata, self.test.part.subjects)
            rivals.append(Rival(name, run.supervision, m.worst_group, m.worst_group_name, m.average, gap))
        return rivals

    def record(self, result: Result, start: Model, *, kept: bool) -> tuple[Run, LowSpuriosity]:
        """The head of the first trial with its record, fitted once more, as `embedx probe` records heads.

        kept  the head as it was instead
        """
        head, before = self._head(result.rows, start), self.before()
        setting = AS_IT_WAS if kept else dict(result.settings[0]) or AS_IT_WAS
        one = HeadSpec(NAME, LowSpuriosity, "average", head.get_params(), [setting])
        run, tuned = self.bench.runs_and_heads(one, [0])[0]
        name = start.name.short
        run = replace(
            run, head=NAME if name == "plain" else f"{NAME} of {name}",
            parameters={**run.parameters, "start": str(start.name)},
            selection=f"gap at most {100 * self.options.target:g} points",
            validation_score=(before if kept else result).stop_gap[0],
            supervision=tuple(dict.fromkeys((*(start.run.supervision if start.run else ()), *run.supervision, STOP))),
            configurations=len(result.front) // result.trials,
        )  # fmt: skip
        assert isinstance(tuned, LowSpuriosity)
        return run, tuned
