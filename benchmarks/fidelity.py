"""The published variant of every head against a plain loop of its definition, and our default against both.

`python -m benchmarks.fidelity [--set gaussian:64] [--head jtt] [--seeds 5]` fits, on sets with the group counts of
Waterbirds and on the demo, every head that somebody published: as its authors compute it (`variant="published"`), as
the loop in `tests/reference_loops` does, in float64 and written apart, and as we do by default. All choose among the
settings of their grid by the same rule on the same rows. Simulated sets are drawn anew for every seed; on the demo the
seed is that of what heads draw.

What was measured is kept in `benchmarks/fidelity.json`, by set, head and seed, so that a run that was stopped goes on;
`docs/fidelity.md` is written from it. The demo's features are those of `embedx extract demo -b tiny:broad`.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from embedx import plugins
from embedx.data import manifest as manifests
from embedx.evaluation.departures import departure
from embedx.evaluation.evaluate import Evaluator
from embedx.evaluation.head_spec import HeadSpec
from embedx.evaluation.heads import head_spec, load_head
from embedx.evaluation.metrics import Metrics, evaluate
from embedx.evaluation.selection import RULES, choose
from embedx.evaluation.split import Part, Split, join
from embedx.files import write_text
from embedx.probes import Features, On
from embedx.store import open_cache
from embedx.workspace import Workspace
from tests.reference_loops import LOOPS
from tests.reference_loops.rows import Rows
from tests.simulated import waterbirds

RECORD, PAGE = Path("benchmarks/fidelity.json"), Path("docs/fidelity.md")
SHOWN, README = Path("probes/_departures.csv"), Path("probes/README.md")
SETS = ("gaussian:64", "gaussian:512", "demo")
COLUMNS = ("loop", "published", "default")
MARKS = "<!-- departures: written by benchmarks/fidelity.py -->", "<!-- end of departures -->"
SHOWN_DIGIT = 0.1
ONE, ERRORS = 1.0, 2.0
"""A published variant may differ from its loop by a point, or by two standard errors of the difference."""

BESIDE = """\
## Beside the authors' code

Loops were once run beside public code, step by step on one batch of all rows: GroupDRO (`kohpangwei/group_DRO`),
JTT and CVaR-DRO (`anniesch/jtt`), AFR (`AndPotap/afr`), EIIL (`ecreager/eiil`), GEORGE
(`HazyResearch/hidden-stratification`), SPARE (SpuCo), IRM and V-REx (DomainBed), SELF (`tmlabonte/milkshake`), DFR,
LEACE (`concept-erasure`), weighted and subsampled rows (`facebookresearch/BalancingGroups`), DPE
(`minhto2802/dpe4subpop`) and, in their mean gradients, LISA and mixup. Weights, losses and steps agree to rounding,
what is drawn in its sizes and spread; SELF to 0.0005, as its weight decay of 0.0001 is left out. Of class-balanced
retraining only the optimiser was looked at, of LEIA and heads of text nothing. Where public code does otherwise
than the paper, the paper is followed:

| head | public code does otherwise |
|---|---|
| `lff` | multiplies the loss of the first head by q; the paper's gradient does not have that factor |
| `irm` | DomainBed multiplies the slopes of the even and of the odd rows of a batch; the paper squares that of all |
| `george` | finds clusters by a Gaussian mixture for Waterbirds, and trains with weight decay 1 |
| `lisa`, `mixup` | draw the kind of mixture, or its share, once for a batch, not for every row: more noise |
| `jtt`, `eiil` | train with weight decay up to 1 |
| `eiil` | searches environments by steps that end before they are the best, which are known in closed form |
""".splitlines()


def split_of(name: str, seed: int) -> Split:
    """The set of this name; simulated ones are drawn by the seed."""
    if name == "demo":
        workspace = Workspace(Path("cache"))
        manifest = manifests.read(workspace.dataset(name)).manifest
        return join(manifest, open_cache(workspace, manifest, "tiny:broad"))
    return waterbirds(int(name.partition(":")[2]), seed)


def rows_of(part: Part, features: Features) -> Rows:
    """In the standardisation of the training rows."""
    Z = (part.X.astype(float) - features.mean) / features.scale
    return Rows(Z, part.y, part.groups, part.partition("attribute"))


def reference(evaluator: Evaluator, spec: HeadSpec, seed: int) -> Metrics:
    """What the loop of this head reports on test."""
    split, features, loop = evaluator.split, evaluator.standard, LOOPS[spec.name.split()[0]]
    used, choosing = evaluator.halves(spec, seed) if spec.halved else (split.train, split.val)
    train, held_out = rows_of(split.train, features), rows_of(used, features)
    heads = loop(train, held_out, spec.grid, seed)
    best, _ = choose(RULES[spec.rule], codes(heads, choosing, features), choosing, evaluator.shares, used)
    theta = heads[best]
    if spec.kind.fits_on is On.VALIDATION or "draws" in spec.cheap:
        everything = rows_of(split.val, features) if spec.kind.fits_on is On.VALIDATION else held_out
        (theta,) = loop(train, everything, [spec.grid[best]], seed)
    logits = rows_of(split.test, features).Z @ theta[:-1] + theta[-1]
    p = 1 / (1 + np.exp(-logits))
    return evaluate(
        split.test.y, np.column_stack([1 - p, p]), split.test.groups, classes=split.classes,
        group_names=split.group_names, group_labels=split.group_labels, train_shares=evaluator.shares, seed=seed,
    )  # fmt: skip


def codes(heads: Sequence[np.ndarray], part: Part, features: Features) -> np.ndarray:
    """(m, n) labels by m heads."""
    rows = rows_of(part, features)
    return np.array([rows.Z @ theta[:-1] + theta[-1] > 0 for theta in heads]).astype(int)


def measured(evaluator: Evaluator, name: str, seed: int) -> dict[str, Any]:
    """{column: [worst group, average] in points} of one head, and the seconds that each took."""
    grouped = evaluator.split.has_groups
    spec = head_spec(f"{name} variant=published", grouped=grouped)
    figures: dict[str, Any] = {"seconds": {}}
    for column in COLUMNS:
        began = time.perf_counter()
        if column == "loop":
            metrics = reference(evaluator, spec, seed)
        else:
            one = spec if column == "published" else head_spec(name, grouped=grouped)
            metrics = evaluator.runs(one, [seed])[0].metrics
        figures[column] = [round(100 * metrics.worst_group.value, 3), round(100 * metrics.average.value, 3)]
        figures["seconds"][column] = round(time.perf_counter() - began, 2)
    return figures


def difference(runs: Sequence[Mapping[str, Any]], a: str, b: str, which: int = 0) -> tuple[float, float]:
    """Mean and standard error of a - b over the seeds, paired; of the worst group, or (1) of the average."""
    apart = [run[a][which] - run[b][which] for run in runs]
    error = statistics.stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else 0.0
    return statistics.fmean(apart), error


def faithful(runs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the published variant is its loop, in worst group and average."""
    return all(
        abs(mean) <= max(ONE, ERRORS * error)
        for mean, error in (difference(runs, "published", "loop", which) for which in (0, 1))
    )


def page(record: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """`docs/fidelity.md`."""
    return "\n".join(_lines(record)) + "\n"


def _lines(record: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    lines = [
        "# Are the heads their papers'?", "",
        "Every head that somebody published has a variant that computes what its authors compute (`--head "
        '"jtt variant=published"`, `Jtt(variant="published")`), and beside it stands here a plain loop of the same '
        "definition, in float64 with automatic derivatives (`tests/reference_loops`), written apart. Both choose among "
        "the published settings by the same rule on the same validation rows, and draw the same rows by the same seed: "
        "where they differ, they compute something else. The last columns are our default and how much it differs.",
        "", _agreement(record), "",
        "Figures are worst groups and averages on test, in percent, means over seeds. Differences are of worst groups, "
        "paired by seed, with the standard error of their mean. Simulated sets are drawn anew for every seed, with the "
        "numbers of rows by group of Waterbirds; on the demo the seed is that of what heads draw, so that heads that "
        "draw nothing have no error there. Written by `python -m benchmarks.fidelity`, which keeps what it measured in "
        "`benchmarks/fidelity.json`.",
        "",
    ]  # fmt: skip
    for name in SETS:
        if name not in record:
            continue
        numbers = sorted({len(runs) for runs in record[name].values()})
        lines += [f"## {_title(name)}", "", f"{' or '.join(map(str, numbers))} seeds.", ""]
        lines += ["| head | loop: worst, average | published | published - loop | default | default - published |",
                  "|---|---|---|---|---|---|"]  # fmt: skip
        for head, by_seed in record[name].items():
            runs = list(by_seed.values())
            cells = [_mean(runs, "loop"), _mean(runs, "published"), _apart(runs, "published", "loop"),
                     _mean(runs, "default"), _apart(runs, "default", "published")]  # fmt: skip
            lines.append(f"| `{head}` | " + " | ".join(cells) + " |")
        lines.append("")
    return [*lines, *_elsewhere()]


def _agreement(record: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """How far the published variants are from their loops, over all sets and heads, in a sentence."""
    apart = {
        (name, head): max(abs(difference(list(runs.values()), "published", "loop", which)[0]) for which in (0, 1))
        for name, heads in record.items() for head, runs in heads.items()
    }  # fmt: skip
    name, head = max(apart, key=lambda key: apart[key])
    equal = sum(value < SHOWN_DIGIT for value in apart.values())
    return (
        f"**In {equal} of {len(apart)} comparisons the two agree to less than {SHOWN_DIGIT} points, worst group and "
        f"average; the furthest apart is `{head}`, by {apart[name, head]:.2f} points ({_title(name).lower()}).**"
    )


def _elsewhere() -> list[str]:
    """The published heads without a row, and those that follow nobody to the letter."""
    kinds = {name: load_head(name) for name in plugins.names(plugins.HEADS)}
    others = [f"`{name}`" for name, kind in kinds.items() if kind.published is not None and name not in LOOPS]
    return [
        "## Not in the tables", "",
        f"{', '.join(others)}: they need texts or a ranking, which these sets do not have, or are a library's own. "
        "Their published variants are held against loops or oracles in the tests. `dpe` and `ppa` follow their papers "
        "with departures that are said in their files, and have no variant that is called published.",
        "", *BESIDE,
    ]  # fmt: skip


def readme(text: str) -> str:
    """`probes/README.md` with the table of departures as it is now, between its two marks."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    told = {head: departure(head) for head in plugins.names(plugins.HEADS)}
    rows = [f"| `{head}` | {one} |" for head, one in told.items() if one]
    return before + "\n".join([MARKS[0], "", "| head | default |", "|---|---|", *rows, "", MARKS[1]]) + after


def _title(name: str) -> str:
    return "The demo" if name == "demo" else f"Simulated, {name.partition(':')[2]} features"


def _mean(runs: Sequence[Mapping[str, Any]], column: str) -> str:
    return ", ".join(f"{statistics.fmean(run[column][which] for run in runs):.1f}" for which in (0, 1))


def _apart(runs: Sequence[Mapping[str, Any]], a: str, b: str) -> str:
    mean, error = difference(runs, a, b)
    return f"{mean:+.1f}" + (f" ± {error:.1f}" if len(runs) > 1 else "")


def departures(record: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """By how much the default's worst group differs, in points: a line for a head and a simulated set."""
    lines = ["head,features,points,error"]
    for head in LOOPS:
        for name in SETS:
            runs = list(record.get(name, {}).get(head, {}).values())
            if runs and name != "demo":
                mean, error = difference(runs, "default", "published")
                lines.append(f"{head},{name.partition(':')[2]},{mean:.1f},{error:.1f}")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--set", "sets", type=click.Choice(SETS), multiple=True, default=SETS)
@click.option("--head", "heads", type=click.Choice(tuple(LOOPS)), multiple=True, default=tuple(LOOPS))
@click.option("--seeds", default=5, show_default=True)
def main(sets: tuple[str, ...], heads: tuple[str, ...], seeds: int) -> None:
    """Measure what is missing, and write the page."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for seed in range(seeds):
        for name in sets:
            evaluator = Evaluator(split_of(name, seed))
            for head in heads:
                runs = record.setdefault(name, {}).setdefault(head, {})
                if str(seed) in runs:
                    continue
                runs[str(seed)] = measured(evaluator, head, seed)
                print(name, head, seed, json.dumps(runs[str(seed)]), flush=True)
                write_text(RECORD, json.dumps(record, indent=1) + "\n")
    record = {
        name: {head: record[name][head] for head in LOOPS if head in record[name]} for name in SETS if name in record
    }
    write_text(RECORD, json.dumps(record, indent=1) + "\n")
    write_text(PAGE, page(record))
    write_text(SHOWN, departures(record))
    write_text(README, readme(README.read_text(encoding="utf-8")))
    for name, found in record.items():
        for head, runs in found.items():
            if not faithful(list(runs.values())):
                print(f"{name}: the published variant of {head} is not its loop")


if __name__ == "__main__":
    main()
