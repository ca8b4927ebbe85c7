"""The Run: one head on one backbone, chosen on validation, reported on test. Tables and plots are views of it."""

from __future__ import annotations

import base64
import platform
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedx import __version__, html
from embedx.documents import ABSENT, Absent, Kind, plain
from embedx.errors import ResultsError
from embedx.evaluation.choice import Certainty
from embedx.evaluation.figures import with_interval
from embedx.evaluation.frame import runs_frame
from embedx.evaluation.inferred import InferredGroups
from embedx.evaluation.metrics import Metrics, dependence
from embedx.evaluation.records import Notice, date, kept, listed
from embedx.evaluation.selection import in_words
from embedx.evaluation.words import of_choice
from embedx.files import landing, locked, write_text
from embedx.probes import GROUP_NEEDS, Supervision, supervision_in_words, supervision_of_record, uses_groups
from embedx.statistics import Interval

FILE, TABLE = "runs.json", "runs.csv"


@dataclass(frozen=True)
class Run:
    """The result record.

    parameters      of the chosen head
    selection       rule that chose it on validation, `validation_score` its value there
    supervision     what was used beyond class labels; `supervision_in_words` of it are what tables show
    configurations  how many heads were fitted and compared to choose this one
    converged       whether every solution reached its tolerance
    rows            {"train": n, "val": n, "test": n}; `left_out` the rows that could not be extracted
    inputs          {"manifest": digest, "weights": SHA-256}
    versions        {library: version} that the numbers depend on
    timings         seconds, each run's share of what was computed for all seeds at once: fit, evaluate
    metrics         everything reported of the head on the test split
    correct         which test rows were right, in the order of groups and within one of ids: `pack`, `unpack`
    needs           what the head needs beyond X and y: "groups", "held_out groups", ...; `fits_on` the split it is
                    fitted on, "train" or "val"
    protocol        how validation was divided where it does more than choose, in words
    validation_worst_group  worst group of the chosen head on the rows that chose it; None without groups
    attributes      {attribute: balanced accuracy of a plain head fitted to tell it}, where that was asked for
    shared_images   {"train/test": n, ...} images of one split that are in another one as well; `shared_subjects` those
                    that show a subject of another one. `dropped` {"train": n, "val": n} rows that were left out so that
                    there is neither, where that was asked for
    cluster         column that names the subjects, where there is one; `subjects` {"train": n, "val": n, "test": n}
    clusters        whose each test row is, in the order of `correct`: `pack_codes`, `unpack_codes`; metrics then count
                    subjects. Empty where no subject has two rows of test, and in records of earlier versions, whose
                    metrics count rows
    near_duplicates {group: about how many of its test rows nearly equal another one of it, by the features}, where
                    that is a twentieth of it or more, and no cluster is named
    barely_seen     {class or group: rows that chose}, of those of which no row or hardly any chose
    tied            how many of the settings had the score of the chosen one: the average decided among them, then the
                    stronger regularisation
    at_edge         {parameter: its value}, where that is the last one tried and better than the one before
    chance          balanced accuracy of a head that knows nothing: 1 over the classes in test; None in earlier versions
    certainty       how sure it is that solving all settings exactly would choose the same: "certified" by a bound,
                    "unchanged" where no label of those that could be the best changed when gradients became ten times
                    smaller, "not settled", or "" where nothing tells
    certain         share of the rows that chose whose label by this head a bound proves to be that of the exact minimum
    inferred        how well the groups that the head inferred agree with the true ones; None without either
    by_rule         {rule: `correct` of the same head chosen by that rule}, of a plain head for the other rules that the
                    data can answer
    """

    dataset: str
    backbone: str
    dim: int
    head: str
    parameters: Mapping[str, Any]
    selection: str
    validation_score: float
    supervision: tuple[Supervision, ...]
    configurations: int
    converged: bool
    seed: int
    rows: Mapping[str, int]
    left_out: Mapping[str, int]
    inputs: Mapping[str, str]
    versions: Mapping[str, str]
    timings: Mapping[str, float]
    metrics: Metrics
    correct: str = ""
    needs: tuple[str, ...] = ()
    fits_on: str = "train"
    protocol: str = ""
    validation_worst_group: float | None = None
    attributes: Mapping[str, Interval] = field(default_factory=dict)
    shared_images: Mapping[str, int] = field(default_factory=dict)
    shared_subjects: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    cluster: str = ""
    subjects: Mapping[str, int] = field(default_factory=dict)
    clusters: str = ""
    near_duplicates: Mapping[str, int] = field(default_factory=dict)
    barely_seen: Mapping[str, int] = field(default_factory=dict)
    tied: int = 1
    at_edge: Mapping[str, float] = field(default_factory=dict)
    chance: float | None = None
    certainty: Certainty = Certainty.UNTOLD
    certain: float = 0.0
    inferred: InferredGroups | None = None
    by_rule: Mapping[str, str] = field(default_factory=dict)

    @property
    def dependence(self) -> str:
        """That test rows are no independent draws, in words, where subjects are repeated."""
        if not self.cluster or not (text := dependence(self.cluster, self.rows["test"], self.subjects["test"])):
            return ""
        counts = "count subjects" if self.clusters else "take rows as independent, so that they are too narrow"
        return f"{text}; intervals {counts}"

    @property
    def drawn(self) -> str:
        """What intervals take as independent draws, in words."""
        return f"subjects ({self.cluster})" if self.clusters else "rows"

    @property
    def name(self) -> str:
        """What was asked, by which two runs of one folder are told apart."""
        seed = f", seed {self.seed}" if self.seed else ""
        return f"{self.head} on {self.backbone} of {self.dataset} by {self.selection}{seed}"

    @property
    def uses_groups(self) -> bool:
        """Whether any group label went into it, to fit, to steer or to choose."""
        return uses_groups(self.supervision) or not GROUP_NEEDS.isdisjoint(self.needs)

    def _repr_html_(self) -> str:
        """What a notebook shows: how the head was chosen, and its figures on test."""
        choice = {
            "parameters": ", ".join(f"{name} = {value}" for name, value in self.parameters.items()),
            "chosen by": f"{self.selection}, {self.configurations} tried",
            "supervision": supervision_in_words(self.supervision),
            "converged": "yes" if self.converged else "no",
            "rows": ", ".join(f"{n:,} {split}" for split, n in self.rows.items()),
        }  # fmt: skip
        return html.facts(self.name, choice) + self.metrics._repr_html_()


@dataclass(frozen=True, kw_only=True)
class RunsDocument:
    """The records of a folder.

    comparison  whether the runs are those of one comparison, or were added one by one; earlier versions did not say
    runs        the runs, in the order in which they were asked for
    """

    comparison: bool | Absent = ABSENT
    runs: tuple[Run, ...]


def supervision_as_values(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of an earlier version, which held its supervision in words."""
    return {**record, "supervision": plain(supervision_of_record(record["supervision"]))}


def _second_version(document: Mapping[str, Any]) -> dict[str, Any]:
    return {**document, "runs": [supervision_as_values(run) for run in document["runs"]]}


KIND = Kind(
    RunsDocument, FILE, "embedx compare", ResultsError, "embedx-runs", 3,
    again="move it away, or name another folder with -o", steps={1: _second_version, 2: dict},
)  # fmt: skip


class Runs(tuple[Run, ...]):
    """Runs as an immutable sequence, which a notebook shows as a table: `Runs(run for run in runs if ...)`."""

    def _repr_html_(self) -> str:
        headings = ("backbone", "head", "seed", "worst group %", "which (n)", "average %", "supervision")
        rows = [
            (run.backbone, run.head, run.seed, with_interval(m.worst_group),
             f"{m.worst_group_name} ({m.worst_group.n:,})", with_interval(m.average),
             supervision_in_words(run.supervision))
            for run, m in ((run, run.metrics) for run in self)
        ]  # fmt: skip
        title = f"{', '.join(dict.fromkeys(run.dataset for run in self))}: test split, 95 % intervals in brackets"
        return html.table(headings, rows, caption=title, numbers={"seed", "worst group %", "average %"})


def cautions(runs: Sequence[Run]) -> list[str]:
    """What to know of all these figures, a sentence each: how the heads were chosen, and that subjects are repeated."""
    remarks = [line for run in runs for line in in_words(run.selection, run.barely_seen)]
    repeated = [run.dependence for run in runs if run.dependence]
    return list(dict.fromkeys([*remarks, *of_choice(runs), *repeated, *_alike(runs)]))


def _alike(runs: Sequence[Run]) -> list[str]:
    """That test rows nearly equal others of their group, by the backbone that sees the most of it."""
    run = max(runs, key=lambda run: sum(run.near_duplicates.values()), default=None)
    if run is None or not (near := run.near_duplicates):
        return []
    most = max(near, key=lambda name: near[name])
    (n,) = (group.n for group in run.metrics.groups if group.name == most)
    return [
        f"about {sum(near.values()):,} of {run.rows['test']:,} test rows nearly equal another one of their group in "
        f"the features of {run.backbone} ({near[most]:,} of {n:,} in {most}), as frames of a clip or crops of a "
        "photograph do; intervals take rows as independent, so that they are too narrow: say whose each row is "
        "(-O cluster=COLUMN), or keep one of each"
    ]


def pack(hits: np.ndarray) -> str:
    """(n,) right or wrong as text: eight rows a byte, the first in the highest bit, in base64."""
    return base64.b64encode(np.packbits(hits).tobytes()).decode()


def unpack(correct: str, n: int) -> np.ndarray:
    """The inverse of `pack`: (n,) bool."""
    return np.unpackbits(np.frombuffer(base64.b64decode(correct), np.uint8), count=n).astype(bool)


def pack_codes(codes: np.ndarray) -> str:
    """(n,) codes of at least 0 as text: numbered as they come, four bytes each, deflated, in base64."""
    names, first, code = np.unique(codes, return_index=True, return_inverse=True)
    number = np.empty(len(names), dtype="<u4")
    number[np.argsort(first)] = np.arange(len(names))
    return base64.b64encode(zlib.compress(number[code].tobytes(), 9)).decode()


def unpack_codes(text: str) -> np.ndarray:
    """What `pack_codes` made: (n,) int64, equal where the codes were, the first 0."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4").astype(np.int64)


def independent(runs: Sequence[Run]) -> str:
    """What the intervals of all these runs take as independent, in words: below every table."""
    return f"{' or '.join(dict.fromkeys(run.drawn for run in runs))} taken as independent"


def save(runs: Sequence[Run], folder: Path, *, comparison: bool = False, views: Sequence[Path] = ()) -> None:
    """Write `runs.json` (the records) and `runs.csv` (one line per run, flat), each whole or not at all.

    views  other files that were made of the records. They and the table are removed before the records change, and
           made again after: a kill leaves some missing, and none that is of other records than those beside it
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = KIND.text(RunsDocument(comparison=comparison, runs=tuple(runs)))
    with landing(folder / FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
        for view in (folder / TABLE, *views):
            view.unlink(missing_ok=True)
    write_text(folder / TABLE, runs_frame(runs).to_csv(index=False, lineterminator="\n"))


def add(fresh: Sequence[Run], folder: Path, notice: Notice) -> None:
    """Add runs to those of a folder; a run of the same dataset, backbone, head, rule and seed is replaced, and told.

    Raises `ResultsError` for a folder that holds a comparison, whose verdicts are of the runs in it and no others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / FILE):
        require(folder, comparison=False)
        before = load(folder / FILE) if (folder / FILE).is_file() else []
        save([*kept(folder / FILE, before, fresh, lambda r: r.name, notice, content=_untimed), *fresh], folder)


def require(folder: Path, *, comparison: bool) -> None:
    """Refuse, before any work, a folder whose `runs.json` is of the other kind: a comparison, or runs one by one.

    Raises `ResultsError` for that, and for a file that cannot be read.
    """
    file = folder / FILE
    if not file.is_file():
        return
    before = KIND.read(file)
    names, compared = listed(r.name for r in before.runs), before.comparison
    if isinstance(compared, Absent):
        compared = any((folder / name).exists() for name in ("report.html", "finished.jsonl"))
    if compared and not comparison:
        raise ResultsError(
            f"{folder} holds a comparison ({names}), which further runs do not belong to; name "
            f"another folder, such as -o {folder / 'probe'}"
        )
    if comparison and not compared:
        raise ResultsError(
            f"{folder} holds single runs of `embedx probe` ({names}), which a comparison would "
            f"replace; name another folder, such as -o {folder / 'comparison'}"
        )


def replaced(fresh: Sequence[Run], folder: Path) -> str:
    """What a comparison in `folder` loses when this one takes its place, in words; empty when nothing."""
    file = folder / FILE
    if not file.is_file():
        return ""
    now, before = {r.name: _untimed(r) for r in fresh}, load(file)
    gone = [r.name for r in before if r.name not in now]
    other = [r.name for r in before if r.name in now and now[r.name] != _untimed(r)]
    if not (gone or other):
        return ""
    parts = [f"no longer in it: {listed(gone)}"] * bool(gone) + [f"other figures: {listed(other)}"] * bool(other)
    return (
        f"note: {folder} held a comparison of {date(file)}, which this one replaces; {'; '.join(parts)}. Its runs stay "
        "in finished.jsonl: to have it back, ask for it again; to keep both, name another folder with -o"
    )


def _untimed(run: Run) -> Run:
    """All but how long it took, which is never the same."""
    return replace(run, timings={})


def load(file: Path) -> Runs:
    """Read `runs.json`. Raises `ResultsError` for what is missing, foreign, newer or damaged."""
    return Runs(KIND.read(file).runs)


def versions() -> dict[str, str]:
    """Versions of what the numbers of a head depend on."""
    import scipy
    import sklearn
    import torch

    return {
        "embedx": __version__, "python": platform.python_version(), "numpy": np.__version__,
        "scipy": scipy.__version__, "scikit-learn": sklearn.__version__, "torch": str(torch.__version__),
    }  # fmt: skip
