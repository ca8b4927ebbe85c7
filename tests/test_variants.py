"""What a head is asked for beside its name: its variant, what it gets as groups, parameters within the text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from simulated import waterbirds

from embedx import plugins
from embedx.errors import HeadError, UnknownName
from embedx.evaluation.evaluate import Evaluator
from embedx.evaluation.head_spec import check
from embedx.evaluation.heads import HeadRequest, head_spec, load_head
from embedx.probes import FitError, Head, Labels, Need, Partition
from embedx.probes.plain import Plain
from embedx.probes.v_rex import VRex

HEADS = plugins.names(plugins.HEADS)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_takes_a_variant_and_says_where_nobody_published_it(name: str) -> None:
    kind = load_head(name)
    assert kind().get_params()["variant"] == "default"
    if kind.published is None:
        with pytest.raises(FitError, match="has no published variant"):
            kind(variant="published").path(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(FitError, match="variant must be 'default' or 'published', found 'other'"):
        kind(variant="other").path(np.eye(4), [0, 1, 0, 1])


def test_a_head_gets_the_partition_that_it_declares_or_another_that_is_asked_for(monkeypatch: Any) -> None:
    split, given = waterbirds(8, share=0.05), []
    real = VRex.path

    def path(self: Head, X: Any, y: Any, settings: Any, *, groups: Any, **more: Any) -> list[Any]:
        given.append(groups)
        return real(self, X, y, settings, groups=groups, **more)

    monkeypatch.setattr(VRex, "path", path)
    for text in ("v-rex C=0.1 beta=1.0", "v-rex C=0.1 beta=1.0 partition=groups"):
        Evaluator(split).runs(head_spec(text), [0])
    (attribute,) = split.train.attributes.values()
    assert VRex.partition is Partition.ATTRIBUTE
    assert np.array_equal(given[0], attribute) and np.array_equal(given[1], split.train.groups)


def test_several_attributes_are_one_partition_by_their_combinations() -> None:
    part = waterbirds(8, share=0.05).train
    other = np.arange(len(part)) % 3
    two = type(part)(part.ids, part.X, part.y, part.groups, {"a": part.y, "b": other})
    assert np.array_equal(two.partition("attribute"), 3 * part.y + other)
    assert np.array_equal(two.partition("b"), other)


def test_a_label_is_read_back_and_what_is_no_parameter_is_named() -> None:
    for text in ("plain", "afr gamma=4.0 share=0.5", "irm partition=groups", "plain variant=default"):
        assert HeadRequest.parse(text).label == text
    with pytest.raises(HeadError, match="'gamma' is no parameter; write afr NAME=VALUE"):
        HeadRequest.parse("afr gamma")
    with pytest.raises(UnknownName, match="no parameter 'gama'.*gamma"):
        HeadRequest.parse("afr gama=1")
    with pytest.raises(HeadError, match="takes no groups"):
        HeadRequest.parse("plain partition=groups")
    with pytest.raises(HeadError, match="partition 'grups'.*groups"):
        check(head_spec("irm partition=grups"), waterbirds(8, share=0.05))


def test_heads_that_need_groups_say_which() -> None:
    assert all(load_head(n).partition in [*Partition] for n in HEADS if Need.GROUPS in load_head(n).needs)
    assert Plain().variant == "default"


BLIND = ("plain", "class-balanced-retraining", "self-disagreement", "jtt", "afr", "lff", "spare")
"""Heads of every kind that need no group label: solved, on validation, steered by it, of two stages, along a path."""


@pytest.mark.parametrize("name", BLIND)
def test_a_head_that_is_chosen_without_groups_sees_none_and_nothing_of_test(name: str) -> None:
    split, rng = waterbirds(8, seed=1, share=0.05), np.random.default_rng(0)
    spec = head_spec(name, "balanced")
    assert spec.blind and not any(s.labels is Labels.GROUPS for s in Evaluator(split).supervision(spec))

    def shuffled(part: Any, *, labels: bool = False) -> Any:
        order = rng.permutation(len(part))
        attributes = {key: codes[order] for key, codes in part.attributes.items()}
        y = part.y[order] if labels else part.y
        return replace(part, y=y, groups=2 * y + attributes["place"], attributes=attributes)

    other = replace(split, train=shuffled(split.train), val=shuffled(split.val), test=shuffled(split.test, labels=True))
    (one,), (two,) = (Evaluator(s).fitted(spec, [0]) for s in (split, other))
    assert one.setting == two.setting and one.score == two.score
    assert np.array_equal(one.head.decision_function(split.test.X), two.head.decision_function(split.test.X))
    assert not head_spec(name, "worst-group").blind


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in HEADS if (kind := load_head(n)).published and not kind.needs & {Need.PROMPTS, Need.SPURIOSITY}]
)
def test_every_published_variant_is_chosen_and_reported(name: str) -> None:
    split = waterbirds(8, share=0.05)
    spec = head_spec(f"{name} variant=published")
    (run,) = Evaluator(split).runs(spec, [0])
    assert run.configurations == len(spec.grid) and run.parameters["variant"] == "published"
    assert run.metrics.average.n == len(split.test) and run.converged is not None


def test_the_authors_grid_is_theirs_and_does_not_grow() -> None:
    for name in HEADS:
        published = load_head(name).published
        if published is not None and not {"prompts", "spuriosity"} & set(map(str, load_head(name).needs)):
            spec = head_spec(f"{name} variant=published", grouped=True)
            assert spec.limits == {} and len(spec.grid) == len(load_head(name).settings_of("published"))
    assert head_spec("jtt").limits, "that of the default does"


@pytest.mark.parametrize("name", [n for n in HEADS if any("variant" in s for s in load_head(n).grid)])
def test_what_is_asked_for_is_never_passed_over_by_a_mixed_grid(name: str) -> None:
    """Published settings stand aside where they do not look at a parameter, or where our variant is asked for."""
    kind = load_head(name)
    assert kind.published is not None and "C" in kind.published.without
    mixed = head_spec(f"{name} tol=0.001").grid
    assert {s.get("variant") for s in mixed} == {None, "published"} and len(mixed) == len(kind.grid)
    values = {p: repr(v) for p, v in kind().get_params().items() if p in kind.published.without}
    assert values.keys() == kind.published.without
    for asked in ("variant=default", *(f"{p}={v}" for p, v in values.items())):
        grid = head_spec(f"{name} {asked}").grid
        assert grid and all(s.get("variant", "default") == "default" and "steps" not in s for s in grid)
