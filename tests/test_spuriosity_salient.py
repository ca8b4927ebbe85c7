"""The public table of votes: counted exactly, refused where it or the network is another, and written as it was."""

from __future__ import annotations

import ast
import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedx.data import manifest as manifests
from embedx.data.manifest import Manifest
from embedx.errors import ProvenanceError, SpuriosityError
from embedx.spuriosity.annotations import agreement, check, read, salient, spurious, write
from embedx.store import CacheWriter, FeatureCache, Header, Rows
from embedx.workspace import Workspace

HEADING = (
    "WorkerId,Input.wordnet_id,Input.class_index,Input.feature_index,Input.feature_rank,Answer.main,"
    "Answer.confidence,Answer.reasons"
)
ANSWERS = ("main_object", "separate_object", "background")
MADRY = {"model": "resnet50/madry-l2-eps3"}
SPEC = "robust:madry-l2-eps3"


def synset(c: int) -> str:
    return f"n{c:08d}"


def dataset(codes: Sequence[int]) -> Manifest:
    """Classes in another order than the table's numbers, two rows."""
    names = [f"{synset(c)} thing {c}" for c in codes]
    columns = {"id": ["a.jpg", "b.jpg"], "label": names[:2], "split": ["train", "test"]}
    return manifests.build("imagenet", columns, classes=names, grouping=())


def cache(
    folder: Path, manifest: Manifest, dim: int = 64, spec: str = SPEC, identity: dict[str, str] = MADRY
) -> FeatureCache:
    n, provenance = len(manifest), {"spec": spec, "identity": {"weights": "ab" * 32, **identity}, "conditions": {}}
    header = Header(spec, dim, "float32", manifest.ids_digest, 0, n, n, provenance)
    path = Workspace(folder).cache(manifest.name, f"{spec}-{dim}")
    with CacheWriter(path, header, manifest.ids) as writer:
        writer.append(
            Rows(manifest.ids, np.ones((n, dim), np.float32), np.zeros(n, np.uint8), np.zeros((n, 32), np.uint8))
        )
    return FeatureCache.open_complete(path)


def rows_of(votes: np.ndarray, seed: int = 0) -> list[list[str]]:
    """The rows of a table with `votes` (classes, features): of five on each pair, so many for something spurious."""
    rng = np.random.default_rng(seed)
    rows = []
    for (c, j), s in np.ndenumerate(votes):
        answers = [ANSWERS[1 + int(rng.integers(2))]] * s + ["main_object"] * (5 - s)
        workers = rng.choice(265, 5, replace=False)
        for worker, answer in zip(workers, rng.permutation(answers), strict=True):
            pair = [synset(c), str(c), str(10 * j + c % 10), str(j + 1)]
            rows.append([str(worker), *pair, str(answer), f"{rng.integers(1, 6)}.0", 'my words, "quoted"\nand lines'])
    rng.shuffle(rows)
    return rows


def table(path: Path, rows: Sequence[Sequence[str]], heading: str = HEADING) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(heading + "\n")
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, FeatureCache]:
    manifest = dataset([2, 0, 3, 1])
    return manifest, cache(tmp_path_factory.mktemp("four"), manifest)


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), min_size=4, max_size=4), st.integers(1, 5))
def test_counts_are_exact(
    tmp_path_factory: pytest.TempPathFactory, four: tuple[Manifest, FeatureCache], votes: list[list[int]], m: int
) -> None:
    manifest, store = four
    path = table(tmp_path_factory.mktemp("votes") / "v.csv", rows_of(np.array(votes)))
    found = salient.read(path, manifest, store)
    code = {0: 1, 1: 3, 2: 0, 3: 2}  # of the manifest, by synset; the numbers in the table say something else
    for rule, least in ((None, 3), (m, m), ("unanimous", 5), ("majority", 3)):
        expected = {
            code[c]: tuple(10 * j + c for j in range(3) if votes[c][j] >= least)
            for c in range(4)
            if max(votes[c]) >= least
        }
        assert spurious(found, rule) == dict(sorted(expected.items()))
        assert spurious(salient.read(path, manifest, store, rule=rule or "majority")) == spurious(found, rule)
    assert [(a.class_index, a.rank) for a in found] == [(c, j) for c in range(4) for j in (1, 2, 3)]
    assert all(a.class_name == manifest.classes[a.class_index] and len(a.votes) == 5 for a in found)
    check(found, store, manifest)
    copy = path.with_name("a.jsonl")
    write(copy, found)
    assert read(copy) == found


def test_a_table_of_the_public_size(tmp_path: Path) -> None:
    """Five features of 1,000 classes; votes for spurious 0 to 5 on as many pairs as were published."""
    counts = (3705, 492, 173, 175, 170, 285)
    votes = np.random.default_rng(0).permutation(np.repeat(np.arange(6), counts)).reshape(1000, 5)
    manifest = dataset(range(1000))
    store = cache(tmp_path, manifest)
    found = salient.read(table(tmp_path / "v.csv", rows_of(votes)), manifest, store)
    assert len(found) == 5000
    for least, pairs in enumerate((1295, 803, 630, 455, 285), 1):
        cues = spurious(found, least)
        assert (sum(map(len, cues.values())), len(cues)) == (pairs, np.count_nonzero(votes.max(axis=1) >= least))
    said = agreement(found, binary=True)
    p = (votes.mean() / 5, 1 - votes.mean() / 5)
    seen = (votes * (votes - 1) + (5 - votes) * (4 - votes)).mean() / 20
    chance = p[0] ** 2 + p[1] ** 2
    assert said.kappa == pytest.approx((seen - chance) / (1 - chance))
    assert (said.pairs, said.votes) == (5000, 25_000)


def test_what_workers_wrote_stays_where_it_is(tmp_path: Path, four: tuple[Manifest, FeatureCache]) -> None:
    path = table(tmp_path / "v.csv", rows_of(np.full((4, 2), 3)))
    found = salient.read(path, *four)
    write(tmp_path / "a.jsonl", found)
    salient.write(tmp_path / "w.csv", found)
    assert "my words" not in (tmp_path / "a.jsonl").read_text() + (tmp_path / "w.csv").read_text()
    kept = salient.read(path, *four, notes=True)
    assert {v.note for a in kept for v in a.votes} == {'my words, "quoted"\nand lines'}


def test_what_a_cell_says_is_never_run(tmp_path: Path, four: tuple[Manifest, FeatureCache]) -> None:
    """Public code passes columns of its table to `eval`."""
    canary = tmp_path / "canary"
    code = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    for column in range(8):
        rows = rows_of(np.full((4, 2), 3))
        rows[0][column] = code
        try:
            salient.read(table(tmp_path / "v.csv", rows), *four, notes=True)
        except SpuriosityError:
            assert column not in (0, 7)  # free text
    assert not canary.exists()


def test_no_step_runs_code_from_a_file_or_takes_a_gpu_for_granted() -> None:
    """Public code evaluates cells, unpickles caches and checkpoints, and calls `.cuda()` throughout."""
    folder = Path(salient.__file__).parent
    banned = {"eval", "exec", "cuda"}, {"pickle", "dill", "joblib", "marshal", "shelve"}
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            name = getattr(called, "id", None) or getattr(called, "attr", None)
            of = getattr(getattr(called, "value", None), "id", None)
            assert not (name in banned[0] and of != "torch"), f"{file}, line {getattr(node, 'lineno', 0)}"
            assert (of, name) != ("torch", "load"), f"{file}, line {getattr(node, 'lineno', 0)}"
            modules = {a.name for a in node.names} if isinstance(node, ast.Import) else set()
            modules |= {node.module or ""} if isinstance(node, ast.ImportFrom) else set()
            assert not banned[1] & {m.partition(".")[0] for m in modules}, file


def test_a_table_written_is_the_table_read(tmp_path: Path, four: tuple[Manifest, FeatureCache]) -> None:
    same = dataset(range(4))
    store = cache(tmp_path, same)
    rows = rows_of(np.array([[0, 1], [2, 3], [4, 5], [3, 3]]))
    path = table(tmp_path / "v.csv", rows)
    found = salient.read(path, same, store, notes=True)
    assert salient.write(tmp_path / "w.csv", found) == 40
    with (tmp_path / "w.csv").open(newline="") as file:
        again = list(csv.reader(file))
    assert ",".join(again[0]) == HEADING
    assert sorted(again[1:]) == sorted(rows)
    reread = salient.read(tmp_path / "w.csv", same, store, notes=True)
    assert [replace(a, evidence={}) for a in reread] == [replace(a, evidence={}) for a in found]
    assert salient.read(path, *four)[0].evidence["table"]["network"] == "name"


def test_votes_that_the_table_cannot_hold(tmp_path: Path, four: tuple[Manifest, FeatureCache]) -> None:
    from embedx.spuriosity.annotations import Vote

    found = salient.read(table(tmp_path / "v.csv", rows_of(np.full((4, 1), 2))), *four)[0]
    local = found.voted([Vote("ann", "unsure"), Vote("bob", "background")])
    assert salient.write(tmp_path / "w.csv", [local]) == 1
    assert (tmp_path / "w.csv").read_text().splitlines()[1:] == ["bob,n00000002,0,2,1,background,,"]
    (back,) = salient.read(tmp_path / "w.csv", *four, votes=None)
    assert [v.confidence for v in back.votes] == [None]
    with pytest.raises(SpuriosityError, match="'feature 2' of class 'n00000002 thing 2' has no rank, and the table"):
        salient.write(tmp_path / "w.csv", [replace(local, rank=None)])


def cell(row: int, column: int, value: str) -> Callable[[list[list[str]]], None]:
    def change(rows: list[list[str]]) -> None:
        rows[row][column] = value

    return change


def again(rows: list[list[str]]) -> None:
    """The first worker once more, in place of another on the same pair."""
    other = next(r for r in rows[1:] if r[1:4] == rows[0][1:4])
    other[0] = rows[0][0]


def lines(path: Path) -> int:
    return path.read_text().count("\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cell(0, 0, ""), "line 3: WorkerId is empty"),
        (cell(0, 1, "tench"), "line 3: Input.wordnet_id is 'tench', expected a synset like n01440764"),
        (cell(0, 2, "x"), "line 3: Input.class_index is 'x', expected a whole number from 0 on"),
        (cell(0, 3, "-1"), "line 3: Input.feature_index is '-1'"),
        (cell(0, 4, "0"), "line 3: Input.feature_rank is '0', expected a whole number from 1 on"),
        (cell(0, 5, "backgrund"), "line 3: Answer.main is 'backgrund'; did you mean 'background'"),
        (cell(0, 6, "6"), "line 3: Answer.confidence is '6', expected 1 to 5"),
        (cell(0, 6, "nan"), "line 3: Answer.confidence is 'nan'"),
        (lambda rows: rows[0].pop(), "line 2: 7 values, expected 8"),
        (lambda rows: rows.clear(), "holds no votes"),
        (lambda rows: rows.pop(), "has 4 votes, expected 5 on every pair"),
        (lambda rows: rows.append(["999", *rows[0][1:]]), "has 6 votes, expected 5 on every pair"),
        (again, "votes again on feature"),
        (cell(0, 2, "77"), "is class "),
        (cell(0, 4, "9"), " has rank "),
        (lambda rows: [r.__setitem__(1, "n00000001") for r in rows if r[1] == "n00000000"], "n00000001 is class"),
        (lambda rows: [r.__setitem__(1, "n00000077") for r in rows if r[1] == "n00000000"], "1 of 4 classes are not"),
        (lambda rows: [r.__setitem__(3, "64") for r in rows if r[3] == "11"], "feature 64, and the cache of robust"),
    ],
)  # fmt: skip
def test_a_table_that_is_wrong_is_refused(
    tmp_path: Path, four: tuple[Manifest, FeatureCache], change: Callable[[list[list[str]]], Any], message: str
) -> None:
    rows = rows_of(np.full((4, 2), 2))
    change(rows)
    with pytest.raises(SpuriosityError) as error:
        salient.read(table(tmp_path / "v.csv", rows), *four)
    assert message in str(error.value) and str(tmp_path / "v.csv") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_such_table(tmp_path: Path, four: tuple[Manifest, FeatureCache]) -> None:
    rows = rows_of(np.full((4, 2), 2))
    for heading, message in (
        (HEADING.replace("Answer.main", "Answer.mine"), "line 1: no column 'Answer.main'; did you mean 'Answer.mine'"),
        (HEADING.replace("WorkerId,", ""), "line 1: no column 'WorkerId'"),
        ("", "line 1: no column 'WorkerId'; "),
    ):
        with pytest.raises(SpuriosityError, match=message):
            salient.read(table(tmp_path / "v.csv", rows, heading), *four)
    with pytest.raises(SpuriosityError, match="none.csv does not exist; name your copy of discover_spurious_features"):
        salient.read(tmp_path / "none.csv", *four)
    path = table(tmp_path / "v.csv", rows)
    path.write_bytes(path.read_bytes().replace(b"my words", b"m\xfc words", 1))
    with pytest.raises(SpuriosityError, match="line 2: no UTF-8 text; save the table as UTF-8"):
        salient.read(path, *four)
    path.write_text(HEADING + '\n"1,n00000000')
    with pytest.raises(SpuriosityError, match="v.csv, line 2: unexpected end of data"):
        salient.read(path, *four)


def test_columns_are_found_by_name(tmp_path: Path, four: tuple[Manifest, FeatureCache]) -> None:
    """In any order, with others among them, as the platform's own export has, and a byte order mark before them."""
    rows = rows_of(np.full((4, 2), 2))
    path = table(tmp_path / "v.csv", rows)
    turned = table(
        tmp_path / "t.csv", [[*r[::-1], "HIT"] for r in rows], "\ufeff" + ",".join([*HEADING.split(",")[::-1], "x"])
    )
    one, two = salient.read(path, *four), salient.read(turned, *four)
    assert [replace(a, evidence={}) for a in one] == [replace(a, evidence={}) for a in two]


def test_a_part_of_the_classes_will_do_on_either_side(tmp_path: Path, four: tuple[Manifest, FeatureCache]) -> None:
    path = table(tmp_path / "v.csv", rows_of(np.full((4, 1), 5)))
    part = dataset([3, 1])
    said: list[str] = []
    assert spurious(salient.read(path, part, cache(tmp_path, part), notice=said.append)) == {0: (3,), 1: (1,)}
    assert said == [f"note: {path}: votes on 2 classes that imagenet does not have are left out"]
    more = dataset(range(9))
    assert len(salient.read(path, more, cache(tmp_path / "more", more), notice=said.append)) == 4 and len(said) == 1
    for names, example in (
        (["cat", "dog"], "imagenet has classes like 'cat'"),
        ([synset(8), synset(9)], "n00000008 of imagenet is not in the table"),
        ([synset(0), synset(9)], "n00000009 of imagenet is not in the table"),
    ):
        rest = [f"{name} {name}" if name[0] == "n" else name for name in names]
        columns = {"id": ["a.jpg", "b.jpg"], "label": rest, "split": ["train", "test"]}
        other = manifests.build("imagenet", columns, grouping=())
        with pytest.raises(SpuriosityError, match=f"classes are not in imagenet .*{example}"):
            salient.read(path, other, cache(tmp_path / names[1], other))


def test_another_network_is_refused(tmp_path: Path) -> None:
    manifest = dataset(range(4))
    path = table(tmp_path / "v.csv", rows_of(np.full((4, 1), 5)))

    def made(spec: str, model: str, dim: int = 2048) -> FeatureCache:
        return cache(tmp_path, manifest, dim, spec, {"model": model})

    sibling = made("robust:salman-l2-eps3", "resnet50/salman-l2-eps3")
    plain = made("torchvision:resnet50.IMAGENET1K_V2", "resnet50/IMAGENET1K_V2")
    mine = made("checkpoint:torchvision/resnet50", "torchvision/resnet50, preprocessing of IMAGENET1K_V1")
    for store, stated, message in (
        (sibling, "", "robust:salman-l2-eps3, a sibling of the same norm and radius: numbers of features mean nothing"),
        (sibling, "ab" * 32, "a sibling of the same norm"),  # what it is known to be, no statement changes
        (plain, "ab" * 32, "is torchvision:resnet50.IMAGENET1K_V2: numbers"),
        (mine, "", f"{SPEC} .{'ab' * 32}.: extract with that backbone, or, when the file is that network, state"),
        (mine, "cd" * 32, "the weights stated to be those of robust:madry-l2-eps3 are cdcd.*, and the cache of checkp"),
        (made("checkpoint:timm/resnet18", "timm/resnet18", 512), "ab" * 32, "is checkpoint:timm/resnet18: numbers"),
    ):
        with pytest.raises(ProvenanceError, match=message):
            salient.read(path, manifest, store, stated=stated)
    (found, *_) = salient.read(path, manifest, mine, stated="ab" * 32)
    assert found.evidence["table"]["network"] == "statement"
    ours = salient.read(path, manifest, cache(tmp_path, manifest))
    other = cache(tmp_path / "other", manifest, identity={**MADRY, "weights": "cd" * 32})
    with pytest.raises(ProvenanceError, match="annotated in robust:madry-l2-eps3 with weights ab"):
        check(ours, other, manifest)


def test_the_network_is_recognised_by_its_numbers(tmp_path: Path) -> None:
    manifest = dataset(range(4))
    found = salient.read(table(tmp_path / "v.csv", rows_of(np.full((4, 5), 2))), manifest, cache(tmp_path, manifest))
    rng = np.random.default_rng(0)
    importance = rng.normal(size=(4, 64))
    for a in found:
        importance[a.class_index, a.feature] += 4
    assert salient.recognised(found, importance) > 0.9
    others = np.setdiff1d(np.arange(64), [a.feature for a in found])[:15]
    importance[:, others] = 100  # fifteen before the five: still among the four times as many
    assert salient.recognised(found, importance) > 0.9
    importance[3] = np.nan  # a class without rows
    assert salient.recognised(found, importance) > 0.9
    with pytest.raises(ProvenanceError, match="% of the annotated features are among the 4 times as many"):
        salient.recognised(found, rng.normal(size=(4, 2048)))
    with pytest.raises(SpuriosityError, match="no annotated class has rows"):
        salient.recognised(found, np.full((4, 64), np.nan))
