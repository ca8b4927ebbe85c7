"""What a repair of groups starts from: the head, the groups to repair, the rows, and the candidates drawn from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from embedx.data.manifest import SPLITS, Manifest
from embedx.data.status import Status
from embedx.errors import HeadError, SplitError
from embedx.evaluation.model import Model
from embedx.evaluation.records import Notice
from embedx.evaluation.split import rows_in
from embedx.repair.answers import original
from embedx.repair.descent import ROUNDING, Draw, Try
from embedx.repair.groups.settings import GroupRepairSettings, GroupSetting
from embedx.repair.settings import Restraint
from embedx.repair.start import Start
from embedx.store import FeatureCache

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one split that have features.

    at      (n,) rows of the manifest; Z (n, d) their coordinates
    y       (n,) labels; groups (n,) codes of the groups
    """

    at: np.ndarray
    Z: torch.Tensor
    y: torch.Tensor
    groups: np.ndarray


@dataclass(frozen=True, eq=False)
class GroupProblem:
    """What a repair of groups starts from.

    weak   (g,) bool, groups that the head gets right less often on validation than the mean group of their class, and
           that have training rows
    rivals (g,) bool, the groups of the same classes that are not less accurate than that
    worst  the least accurate of the weak groups that have test rows: whose gain is tested, on rows that did not say so
    """

    manifest: Manifest
    cache: FeatureCache
    start: Start
    weak: np.ndarray
    rivals: np.ndarray
    worst: int
    train: Rows
    val: Rows
    test: Rows
    settings: GroupRepairSettings

    @classmethod
    def of(
        cls, manifest: Manifest, cache: FeatureCache, model: Model, settings: GroupRepairSettings, notice: Notice
    ) -> GroupProblem:
        """Everything that can be refused is refused here; raises as `repair_groups`."""
        if manifest.groups is None:
            raise HeadError(
                f"{manifest.name} has no attribute that forms groups; add a column to manifest.csv and name it under "
                "`grouping` in manifest.json, or repair a concept (--concept, --target)"
            )
        start, names, at = Start.of(model), manifest.group_names, rows_in(manifest, cache)
        usable = cache.status[at] == Status.OK
        train, val, test = (_rows(manifest, cache, start, at, usable, split) for split in range(len(SPLITS)))
        for split, rows in (("train", train), ("val", val), ("test", test)):
            if not len(rows.at):
                raise SplitError(
                    f"{manifest.name} has no {split} row with features: a repair of groups is fitted on train, stopped "
                    "and chosen on val and reported on test; give rows to all three in manifest.csv"
                )
        accuracy, sizes = _accuracy(start, val, len(names)), np.bincount(train.groups, minlength=len(names))
        weak, rivals = _weak(accuracy, len(manifest.classes), sizes > 0)
        if not weak.any():
            raise HeadError(
                f"{manifest.name}: in no class does the head get one group right less often than another on "
                "validation, of which there are training rows; there is no group to repair"
            )
        reported = np.where(weak & np.isin(np.arange(len(names)), test.groups), accuracy, np.inf)
        if not reported.min() < np.inf:
            raise SplitError(
                f"{manifest.name} has no test row of {', '.join(names[g] for g in np.flatnonzero(weak))}, which the "
                "head gets wrong on validation: nothing can be reported; give them rows in test"
            )
        worst, least = int(reported.argmin()), int(np.where(weak, sizes, sizes.max() + 1).argmin())
        settings = replace(settings, shots=settings.resolved(int(sizes[least]), names[least]))
        most, known = max(settings.shots), ~np.isnan(accuracy)
        if few := [f"{names[g]} ({sizes[g]:,})" for g in np.flatnonzero(known & (sizes < most))]:
            notice(f"note: fewer than {most:,} training images, of which all there are are fitted on: {', '.join(few)}")
        return cls(manifest, cache, start, weak, rivals, worst, train, val, test, settings)

    @cached_property
    def grid(self) -> tuple[GroupSetting, ...]:
        """The settings of the sweep."""
        return self.settings.grid()

    def tries(self) -> list[Try]:
        """Every setting with the first seed, then with the second, ...; those with equal rows share a draw."""
        import torch

        out = []
        for seed in range(self.settings.seeds):
            rng = np.random.default_rng([seed, 3])
            order = {g: rng.permutation(np.flatnonzero(self.train.groups == g)) for g in np.unique(self.train.groups)}
            draws = {}
            for s in self.grid:
                if s.shots not in draws:
                    # The other groups come first: a pull to what the head said is to what it said of them.
                    parts = [[order[g][: s.shots] for g in order if self.weak[g] == of] for of in (False, True)]
                    kept, weak = (np.concatenate([*p, np.empty(0, np.int64)]) for p in parts)
                    rows = torch.from_numpy(np.concatenate([kept, weak]).astype(np.int64))
                    draws[s.shots] = Draw(self.train.Z[rows], self.train.y[rows], len(kept), self.val.Z, self.val.y)
                out.append(Try(draws[s.shots], s.rate, Restraint.parse(s.pull)))
        return out


@dataclass(frozen=True, eq=False)
class Balance:
    """Stop once the least accurate weak group of the validation rows is no less accurate than the least of the rivals.

    shares  (v, g) 1 / n of the group of each row in the group's column, else 0; weak, rivals (g,) bool
    """

    shares: torch.Tensor
    weak: torch.Tensor
    rivals: torch.Tensor

    @classmethod
    def of(cls, problem: GroupProblem) -> Balance:
        """Of the validation rows."""
        import torch

        codes = problem.val.groups
        n, shares = np.bincount(codes, minlength=len(problem.weak)), np.zeros((len(codes), len(problem.weak)))
        shares[np.arange(len(codes)), codes] = 1 / n[codes]
        return cls(*(torch.from_numpy(a) for a in (shares, problem.weak, problem.rivals)))

    def __call__(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """As `descent.Stops`."""
        accuracy = (logits.argmax(-1) == y).double() @ self.shares
        return accuracy[..., self.weak].amin(-1) >= accuracy[..., self.rivals].amin(-1) - ROUNDING


def _accuracy(start: Start, val: Rows, groups: int) -> np.ndarray:
    """(g,) accuracy of the head on each group of the validation rows, NaN without rows."""
    right = original(start, val.Z, val.y)[0].right
    n, hits = (np.bincount(val.groups, weights=w, minlength=groups) for w in (None, right))
    return np.divide(hits, n, out=np.full(groups, np.nan), where=n > 0)


def _weak(accuracy: np.ndarray, classes: int, fitted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two (g,) bool: groups less accurate on validation than the mean of their class's, and the others of the class.

    fitted  (g,) bool, groups of which there are training rows; others are neither
    """
    by_class, seen = accuracy.reshape(classes, -1), ~np.isnan(accuracy)  # groups are in the order of their classes
    n = np.maximum(seen.reshape(by_class.shape).sum(1, keepdims=True), 1)
    weak = by_class < np.nansum(by_class, axis=1, keepdims=True) / n - ROUNDING
    repaired = weak & fitted.reshape(by_class.shape)
    rivals = repaired.any(1, keepdims=True) & ~weak
    return repaired.ravel(), rivals.ravel() & seen


def _rows(
    manifest: Manifest, cache: FeatureCache, start: Start, at: np.ndarray, usable: np.ndarray, split: int
) -> Rows:
    import torch

    rows = np.flatnonzero(usable & (manifest.splits == split))
    groups = manifest.groups
    assert groups is not None
    return Rows(rows, start.z(cache.take(at[rows])), torch.from_numpy(manifest.labels[rows]), groups[rows])
