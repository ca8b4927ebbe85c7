"""The program that holds published variants against their loops tells the faithful from others, and departures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from simulated import waterbirds

from benchmarks import fidelity
from embedx.evaluation.departures import departure
from embedx.evaluation.evaluate import Evaluator
from embedx.evaluation.heads import head_spec
from tests.reference_loops import LOOPS

ROOT = Path(__file__).parents[1]
RECORD = json.loads((ROOT / fidelity.RECORD).read_text(encoding="utf-8"))


def test_a_variant_that_is_not_its_loop_is_told() -> None:
    runs = [{"loop": [80.0 + s, 90.0], "published": [82.0 + s + 0.1 * s, 90.0]} for s in range(4)]
    assert not fidelity.faithful(runs)
    assert fidelity.faithful([{**run, "published": [run["loop"][0] + 0.9, 90.5]} for run in runs])
    noisy = [{"loop": [80.0, 90.0], "published": [80.0 + x, 90.0]} for x in (-6.0, 10.0, -5.0, 9.0)]
    assert fidelity.faithful(noisy)


def test_the_program_measures_what_the_record_holds() -> None:
    split = waterbirds(8, seed=1, share=0.2)
    one = fidelity.measured(Evaluator(split), "class-balanced", 0)
    run = Evaluator(split).runs(head_spec("class-balanced variant=published"), [0])[0]
    assert one["published"] == [round(100 * x.value, 3) for x in (run.metrics.worst_group, run.metrics.average)]
    assert np.allclose(one["loop"], one["published"], atol=1.0)


def test_every_published_variant_is_its_loop_on_every_set() -> None:
    assert tuple(RECORD) == fidelity.SETS
    for heads in RECORD.values():
        assert tuple(heads) == tuple(LOOPS)
        assert all(len(runs) >= 3 and fidelity.faithful(list(runs.values())) for runs in heads.values())


def test_pages_and_tables_are_the_record_s_and_what_the_heads_say() -> None:
    assert (ROOT / fidelity.PAGE).read_text(encoding="utf-8") == fidelity.page(RECORD)
    assert (ROOT / fidelity.SHOWN).read_text(encoding="utf-8") == fidelity.departures(RECORD)
    text = (ROOT / fidelity.README).read_text(encoding="utf-8")
    assert fidelity.readme(text) == text
    assert all(f"| `{head}` | " in text for head in LOOPS)


def test_the_simulated_sets_of_the_record_can_be_measured_again() -> None:
    evaluator = Evaluator(fidelity.split_of("gaussian:64", 1))
    for head in ("class-balanced", "group-balanced"):
        again, kept = fidelity.measured(evaluator, head, 1), RECORD["gaussian:64"][head]["1"]
        for column in ("published", "default"):
            assert np.allclose(again[column], kept[column], atol=0.5)  # a label or two may change with the machine


def test_a_departure_is_told_where_there_is_one() -> None:
    told = departure("jtt")
    assert told is not None and told.words and told.words in str(told)
    assert [change.features for change in told.changes] == [64, 512]
    assert departure("jtt variant=published") is None and departure("bias-tuned") is None
    assert str(departure("zero-shot")) == "as published"
