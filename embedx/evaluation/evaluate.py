"""One head on one backbone: fitted for all settings and seeds at once, chosen on validation, judged on test."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from embedx.errors import HeadError
from embedx.evaluation import runs
from embedx.evaluation.by_rule import by_rule, hits_by_rule, predicted
from embedx.evaluation.choice import Search, Settings, Starts, pursue
from embedx.evaluation.head_spec import HeadSpec
from embedx.evaluation.inferred import inferred_by
from embedx.evaluation.judging import SelectedHead, judged
from embedx.evaluation.metrics import evaluate
from embedx.evaluation.runs import Run
from embedx.evaluation.selection import RULES, barely_seen, scored
from embedx.evaluation.split import Part, Split, halves
from embedx.probes import (
    ContractError,
    Features,
    FitError,
    Head,
    HeldOut,
    Labels,
    Need,
    On,
    Purpose,
    Supervision,
)
from embedx.probes.plain import Plain
from embedx.statistics import Interval


class Evaluator:
    """The features of one backbone, standardised once, by the training rows, and shared by all heads."""

    def __init__(self, split: Split, standard: Features | None = None) -> None:
        self.split = split
        self.shares = np.bincount(split.train.groups, minlength=len(split.group_names)) / len(split.train)
        self._given = standard
        self._halves: dict[tuple[int, bool], tuple[Part, Part]] = {}

    @cached_property
    def standard(self) -> Features:
        """The training rows, standardised by themselves."""
        return self._given or Features.standardize(self.split.train.X)

    @cached_property
    def raw(self) -> Features:
        """The training rows as they are."""
        return Features.identity(self.split.train.X)

    def features(self, part: Part, standardize: bool) -> Features:
        """Of the rows of a part, in the standardisation of the training rows or as they are."""
        if part is self.split.train:
            return self.standard if standardize else self.raw
        shared = self.standard if standardize else self.raw
        return Features(part.X, shared.mean, shared.scale)

    def halves(self, spec: HeadSpec, seed: int) -> tuple[Part, Part]:
        """The half of validation that is fitted or steers, and the half that chooses, as the seed draws them."""
        key = seed, spec.blind
        if key not in self._halves:
            self._halves[key] = halves(self.split.val, seed, blind=spec.blind)
        return self._halves[key]

    def runs(self, spec: HeadSpec, seeds: Sequence[int], extra: Mapping[str, Any] | None = None) -> list[Run]:
        """One record per seed; see `fitted` for errors. `extra` are further fields of the record."""
        return [run for run, _ in self.runs_and_heads(spec, seeds, extra)]

    def runs_and_heads(
        self, spec: HeadSpec, seeds: Sequence[int], extra: Mapping[str, Any] | None = None
    ) -> list[tuple[Run, Head]]:
        """Records beside the heads they are of."""
        began = time.perf_counter()
        chosen = self.fitted(spec, seeds)
        fitted = time.perf_counter()
        split, kind, rule = self.split, spec.kind, RULES[spec.rule]
        fitted_on = split.val if kind.fits_on is On.VALIDATION else split.train
        order = np.argsort(split.test.groups, kind="stable")
        whose = "" if split.test.repeated is None else runs.pack_codes(split.test.repeated[order])
        pairs: list[tuple[Run, Head]] = []
        for seed, one in zip(seeds, chosen, strict=True):
            before, proba = time.perf_counter(), self._reported(spec, one.head)
            metrics = evaluate(
                split.test.y, proba, split.test.groups, classes=split.classes, group_names=split.group_names,
                group_labels=split.group_labels, train_shares=self.shares, clusters=split.test.repeated, seed=seed,
            )  # fmt: skip
            hits = (proba.argmax(axis=1) == split.test.y)[order]
            others = hits_by_rule(one.by_rule, split.test, order)
            seconds = {"fit": (fitted - began) / len(seeds), "evaluate": time.perf_counter() - before}
            run = Run(
                dataset=split.dataset, backbone=split.backbone, dim=split.train.X.shape[1], head=spec.name,
                parameters=one.head.get_params(), selection=rule.name, validation_score=one.score,
                supervision=self.supervision(spec), configurations=one.tried,
                converged=bool(one.head.converged_), seed=seed,
                rows={"train": len(split.train), "val": len(split.val), "test": len(split.test)},
                left_out=split.left_out, inputs=dict(split.facts), versions=runs.versions(), timings=seconds,
                metrics=metrics, correct=runs.pack(hits), needs=tuple(sorted(map(str, kind.needs))),
                fits_on=str(kind.fits_on),
                protocol=spec.protocol, validation_worst_group=one.worst_group, cluster=split.cluster,
                subjects=split.subjects, clusters=whose, near_duplicates=split.near_duplicates,
                barely_seen=self.barely_seen(spec, seed),
                tied=one.tied, at_edge=one.edges, certainty=one.certainty, certain=one.certain,
                chance=1 / len(np.unique(split.test.y)),
                inferred=inferred_by(
                    one.head, spec.name, fitted_on.y, fitted_on.groups, fitted_on.repeated
                ) if split.has_groups else None,
                by_rule={name: runs.pack(of) for name, of in others.items()}, **(extra or {}),
            )  # fmt: skip
            pairs.append((run, one.head))
        return pairs

    def supervision(self, spec: HeadSpec) -> tuple[Supervision, ...]:
        """What goes into a head and its choice beyond class labels; of a ranking also what it took."""
        used = [
            replace(one, source=self.split.ranked_by) if one.labels is Labels.SPURIOSITY and not one.source else one
            for one in spec.kind.supervision
        ]
        labels = {"groups": Labels.GROUPS, "spuriosity": Labels.SPURIOSITY}.get(RULES[spec.rule].over)
        return (*used, *([Supervision(labels, On.VALIDATION, Purpose.CHOOSE)] if labels else ()))

    def barely_seen(self, spec: HeadSpec, seed: int) -> dict[str, int]:
        """Classes and groups that hardly any row chose for, see `selection.barely_seen`; none without a choice."""
        if len(spec.grid) < 2:
            return {}
        return barely_seen(RULES[spec.rule], self.split, self.halves(spec, seed)[1] if spec.halved else self.split.val)

    def fitted(self, spec: HeadSpec, seeds: Sequence[int]) -> list[SelectedHead]:
        """The chosen head of every seed.

        Raises `HeadError` when the head cannot be fitted on the data, or breaks its contract; any other error is a bug
        in its code, and comes as it is.
        """
        fit = self._on_validation if spec.kind.fits_on is On.VALIDATION else self._on_train
        try:
            return fit(spec, seeds)
        except (FitError, ContractError) as error:
            raise HeadError(f"head {spec.name!r} on {self.split.backbone}: {error}") from error

    def _reported(self, spec: HeadSpec, head: Head) -> np.ndarray:
        """(n, k) probabilities of the test rows."""
        try:
            return head.predict_proba(self.split.test.X)
        except (FitError, ContractError) as error:
            raise HeadError(f"head {spec.name!r} on {self.split.backbone}, test: {error}") from error

    def _on_train(self, spec: HeadSpec, seeds: Sequence[int]) -> list[SelectedHead]:
        """Chosen on validation, or on the half of it, drawn by the seed, that has not steered the fit."""
        train, parts, steering = self.split.train, [(self.split.train, self.split.val)] * len(seeds), []
        if spec.steered:
            parts = [self.halves(spec, seed) for seed in seeds]
            steering = [HeldOut(u.X, u.y, u.groups if self.split.has_groups else None) for u, _ in parts]

        memory: dict[Any, Any] = {}

        def fit(settings: Settings, starts: Starts) -> list[list[Any]]:
            """The heads of the settings of every seed, all fitted together."""
            held_out = [h for h, mine in zip(steering, settings, strict=True) for _ in mine] if steering else []
            flat = [s for mine in settings for s in mine], held_out, [h for mine in starts for h in mine]
            heads = iter(self._path(spec, train, *flat, memory))
            return [[next(heads) for _ in mine] for mine in settings]

        return self._chosen(spec, seeds, parts, fit)

    def _on_validation(self, spec: HeadSpec, seeds: Sequence[int]) -> list[SelectedHead]:
        """Fitted on a half of validation, chosen on the other; then the chosen settings fitted on all of it."""
        parts = [self.halves(spec, seed) for seed in seeds]
        memories: list[dict[Any, Any]] = [{} for _ in seeds]

        def fit(settings: Settings, starts: Starts) -> list[list[Any]]:
            """The heads of the settings of every seed, each on its half."""
            asked = zip(parts, settings, starts or [()] * len(parts), memories, strict=True)
            return [self._path(spec, a, mine, (), near, known) if mine else [] for (a, _), mine, near, known in asked]

        selected = self._chosen(spec, seeds, parts, fit)
        heads = self._path(spec, self.split.val, [c.setting for c in selected])
        return [replace(c, head=h) for c, h in zip(selected, heads, strict=True)]

    def _chosen(
        self,
        spec: HeadSpec,
        seeds: Sequence[int],
        parts: Sequence[tuple[Part, Part]],
        fit: Callable[[Settings, Starts], list[list[Any]]],
    ) -> list[SelectedHead]:
        """The best head of every seed by the second of its parts; its score is that of the head that is reported."""
        searches = [
            Search(
                spec.of(seed),
                spec.limits,
                partial(judged, RULES[spec.rule], choosing, self.shares, used),
                spec.tolerance,
            )
            for seed, (used, choosing) in zip(seeds, parts, strict=True)
        ]
        pursue(searches, lambda wanted, starts: fit([[{**spec.cheap, **s} for s in mine] for mine in wanted], starts))
        chosen = [s.chosen for s in searches]
        settings = [t.setting if spec.in_full(t.tol) else {**t.setting, "tol": t.tol} for t in chosen]
        again = spec.cheap.keys() - {"tol"}
        final = fit([[setting] for setting in settings], []) if again else [[t.head] for t in chosen]
        selected = []
        for s, (head,), setting, (used, choosing) in zip(searches, final, settings, parts, strict=True):
            others = by_rule(spec.rule, s.heads, s.codes, self.split, self.shares) if spec.kind is Plain else {}
            codes = predicted([head], choosing.X) if again else s.codes[[s.best]]
            (score,), (worst,) = (
                scored(RULES[rule], codes, choosing, self.shares, used).scores for rule in (spec.rule, "worst-group")
            )
            selected.append(
                SelectedHead(
                    head, setting, float(score), float(worst) if self.split.has_groups else None, len(s.settings),
                    int(s.scored.tied.sum()), s.edges(), s.certainty(), s.certain, others,
                )
            )  # fmt: skip
        return selected

    def _path(
        self,
        spec: HeadSpec,
        part: Part,
        settings: Sequence[Mapping[str, Any]],
        held_out: Sequence[HeldOut] = (),
        starts: Sequence[Any] = (),
        memory: dict[Any, Any] | None = None,
    ) -> list[Any]:
        base = spec.kind(**spec.parameters)
        groups = part.partition(spec.partition or spec.kind.partition) if Need.GROUPS in spec.kind.needs else None
        more = {"spuriosity": part.spuriosity} if Need.SPURIOSITY in spec.kind.needs else {}
        more |= {} if part.subjects is None else {"clusters": part.subjects}
        X = self.features(part, bool(base.standardize))
        return base.path(
            X,
            part.y,
            settings,
            groups=groups,
            held_out=held_out or None,
            prompts=spec.prompts,
            starts=starts,
            memory=memory,
            **more,
        )

    @cached_property
    def decodability(self) -> dict[str, Interval]:
        """{attribute: balanced accuracy on test of a plain head that is fitted to tell the attribute itself}.

        An attribute with a value that train or test lacks is left out.
        """
        accuracies = {}
        for attribute, names in self.split.values.items():
            split = self.split.of_attribute(attribute)
            if all(len(np.unique(p.y)) == len(names) > 1 for p in (split.train, split.val, split.test)):
                bench = Evaluator(split, self.standard)
                (run,) = bench.runs(HeadSpec("plain", Plain, "balanced"), [0])
                accuracies[attribute] = run.metrics.balanced_accuracy
        return accuracies
