"""Repair of a head: the sweep is gradient descent, the answer is what was built in, bad input is refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pets import ONE, WHOLE, features, write

import embedx
from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.errors import EmbedxError, HeadError
from embedx.evaluation import saved
from embedx.evaluation.model import Model, ModelName
from embedx.probes import Affine
from embedx.repair import Repaired, RepairSettings, Restraint, descent, leaps, publish, repair_head
from embedx.repair.answers import answers, original
from embedx.repair.bias import Control, margins
from embedx.repair.descent import Draw, Threshold, Try, descend
from embedx.repair.records import FILE, KIND
from embedx.repair.rows import Division
from embedx.repair.start import Start
from embedx.workspace import Workspace

K, D = 4, 24
COUNTS = {"train": 12, "val": 40, "test": 150}


def start(k: int = K, d: int = D, seed: int = 0) -> Start:
    rng = np.random.default_rng(seed)
    numbers = Affine(rng.normal(size=(k, d)), rng.normal(size=k), rng.normal(size=d), rng.uniform(0.5, 2, d))
    names = tuple(f"c{c}" for c in range(k))
    return Start.of(Model(ModelName("made", "plain"), "made", names, names, {}, numbers))


def draw(head: Start, kept: int, shots: int, seed: int) -> Draw:
    rng = np.random.default_rng(seed)
    k, d = head.W.shape
    Z = torch.from_numpy(rng.normal(size=(kept + shots, d)).astype(np.float32))
    y = torch.from_numpy(np.concatenate([rng.integers(0, k, kept), np.ones(shots, dtype=np.int64)]))
    Z_val = Z[-1] + 0.1 * torch.from_numpy(rng.normal(size=(6, d)).astype(np.float32))
    return Draw(Z, y, kept, Z_val, torch.ones(6, dtype=torch.long))


def alone(head: Start, one: Try, threshold: float, steps: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The loop that anybody would write, in double precision."""
    W, b = (p.double().clone().requires_grad_(True) for p in (head.W, head.b))
    W0, b0, d, step = head.W.double(), head.b.double(), one.draw, 0
    Z, kept = d.Z.double(), d.Z[: d.kept].double()
    optimizer = torch.optim.SGD([W, b], lr=one.rate)
    for step in range(steps + 1):
        if step == steps or ((d.Z_val.double() @ W.T + b).argmax(1) == d.y_val).double().mean() >= threshold:
            break
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(Z @ W.T + b, d.y)
        if one.pull.kind == "l2":
            loss = loss + one.pull.strength / 2 * ((W - W0).square().sum() + (b - b0).square().sum())
        if one.pull.kind == "kl" and d.kept:
            own, now = torch.log_softmax(kept @ W0.T + b0, 1), torch.log_softmax(kept @ W.T + b, 1)
            loss = loss + one.pull.strength * (own.exp() * (own - now)).sum(1).mean()
        loss.backward()
        optimizer.step()
    return (W - W0).detach().numpy(), (b - b0).detach().numpy(), step


@pytest.mark.parametrize("k", [2, 5])
def test_a_sweep_is_one_gradient_descent_after_another(k: int) -> None:
    head = start(k)
    draws = [
        draw(head, kept, shots, seed) for kept, shots in ((0, 1), (4, 2), (30, 5)) for seed in (0, 1)[: 1 + (kept == 4)]
    ]
    pulls = (Restraint(), Restraint("l2", 0.3), Restraint("kl", 2.0))
    tries = [Try(d, rate, pull) for d in draws for rate in (0.01, 0.3) for pull in pulls]
    found = descend(head, tries, Threshold(0.8), 25)
    for one, change in zip(tries, found, strict=True):
        W, b, steps = alone(head, one, 0.8, 25)
        assert change.steps == steps
        assert np.abs(change.weight - W).max() < 1e-5 and np.abs(change.beta.numpy() - b).max() < 1e-5
        (single,) = descend(head, [one], Threshold(0.8), 25)
        assert np.abs(single.weight - change.weight).max() < 1e-5 and single.steps == change.steps
    assert {c.reached for c in found} == {True, False}


@pytest.mark.parametrize(("rate", "steps", "most"), [(0.005, 800, 140), (0.02, 200, 140), (2.0, 30, 61)])
def test_leaps_come_to_the_same_place_as_steps(
    rate: float, steps: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(descent, "Place", lambda step, *of: looks.append(step) or leaps.Place(step, *of))
    reached = set()
    head = start(5)
    for kept, shots, pull in ((0, 3, Restraint()), (8, 2, Restraint("l2", 0.1)), (40, 4, Restraint("kl", 1.0))):
        for threshold in (0.8, 2.0):
            looks.clear()
            one = Try(draw(head, kept, shots, 1), rate, pull)
            (change,) = descend(head, [one], Threshold(threshold), steps)
            W, b, taken = alone(head, one, threshold, steps)
            assert change.steps == taken and change.reached == (change.right.mean() >= threshold)
            assert np.abs(change.weight - W).max() < 1e-5 and np.abs(change.beta.numpy() - b).max() < 1e-5
            assert len(looks) <= most
            reached.add(change.reached)
    assert reached == {True, False}


def test_a_stop_of_a_few_steps_is_not_passed_over() -> None:
    """The first of two images is right from step 716 on, the second no more from 717: a plain loop stops between."""
    numbers, names = Affine.plain(np.array([[1.0, 0], [-1, 0]]), np.zeros(2)), ("a", "b")
    head = Start.of(Model(ModelName("made", "plain"), "made", names, names, {}, numbers))
    Z_val = torch.tensor([[1.0, 0], [1.001, 0]])
    d = Draw(torch.tensor([[1.0, 0]]), torch.tensor([1]), 0, Z_val, torch.tensor([1, 0]))
    (change,) = descend(head, [Try(d, 1e-3, Restraint())], Threshold(1.0), 2000)
    assert alone(head, Try(d, 1e-3, Restraint()), 1.0, 2000)[2] == change.steps == 716 and change.reached


@pytest.mark.parametrize("cells", [0, 1 << 20])
def test_a_stop_is_found_in_the_memory_of_one_step_as_well(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaps, "CELLS", cells)
    head = start(5)
    one = Try(draw(head, 8, 2, 1), 0.005, Restraint())
    (change,) = descend(head, [one], Threshold(0.8), 800)
    assert change.reached and change.steps == alone(head, one, 0.8, 800)[2] > 30


def test_a_head_that_says_nothing_can_be_repaired() -> None:
    numbers, names = Affine.plain(np.zeros((3, 4)), np.zeros(3)), ("a", "b", "c")
    head = Start.of(Model(ModelName("made", "plain"), "made", names, names, {}, numbers))
    one = Try(draw(head, 3, 2, 0), 0.01, Restraint())
    (change,) = descend(head, [one], Threshold(2.0), 300)
    assert np.abs(change.weight - alone(head, one, 2.0, 300)[0]).max() < 1e-5


def test_a_kl_pull_is_tried_only_where_images_are_kept() -> None:
    kl = (Restraint(), Restraint("kl", 1.0), Restraint("kl", 1.0))
    grid = RepairSettings((1,), (0, 2), (0.1,), kl).grid(("a", "b"))
    assert [(s.classes, s.pull) for s in grid] == [(0, "none"), (2, "none"), (2, "kl:1")]
    with pytest.raises(HeadError, match="a kl pull needs images that are kept: ask for classes above 0"):
        RepairSettings((1,), (0,), (0.1,), kl[1:]).grid(("a", "b"))


@given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=5, unique=True), st.integers(1, 50),
    st.lists(st.floats(-1, 1), min_size=5, max_size=5),
)  # fmt: skip
def test_sums_of_a_leap_are_exact_for_polynomials(times: list[int], s: int, coefficients: list[float]) -> None:
    value = np.polynomial.Polynomial(coefficients[: len(times)], domain=[-50, 50], window=[-1, 1])
    expected = [sum(value(i) for i in range(j)) for j in range(s + 1)]
    weights = leaps.sums(times, s)
    assert np.allclose(value(np.array(times, float)) @ weights, expected, atol=1e-9 * max(1, np.abs(weights).max()))


def test_answers_are_those_of_the_changed_head() -> None:
    head = start()
    tries = [Try(draw(head, kept, 3, seed), 0.5, Restraint()) for kept in (0, 4, 40) for seed in (0, 1)]
    changes, rng = descend(head, tries, Threshold(2.0), 20), np.random.default_rng(5)
    X, y = rng.normal(size=(200, D)), rng.integers(0, K, 200)
    Z, labels = head.z(X), torch.from_numpy(y)
    before = head.model.probabilities(X)
    for change, said in zip(changes, answers(head, changes, Z, labels), strict=True):
        proba = head.changed(change.weight, change.beta.double().numpy()).probabilities(X)
        assert np.array_equal(said.said, proba.argmax(1))
        own = proba[np.arange(200), y]
        assert np.array_equal(said.rank, (proba > own[:, None]).sum(1))
        assert np.allclose(said.forward, (before * np.log(before / proba)).sum(1), atol=1e-5)
        assert np.allclose(said.reverse, (proba * np.log(proba / before)).sum(1), atol=1e-5)
    assert np.array_equal(original(head, Z, labels)[0].said, before.argmax(1))


def test_of_two_classes_the_repaired_head_keeps_one_logit() -> None:
    head = start(2)
    one = Affine(head.model.affine.coef[1:], head.model.affine.intercept[1:], *(np.zeros(D), np.ones(D)))
    binary = Start.of(Model(ModelName("made", "plain"), "made", ("a", "b"), ("a", "b"), {}, one))
    (change,) = descend(binary, [Try(draw(binary, 4, 2, 0), 0.3, Restraint())], Threshold(2.0), 10)
    assert np.allclose(change.weight[0], -change.weight[1], atol=1e-6)
    assert binary.changed(change.weight, change.beta.double().numpy()).affine.coef.shape == (1, D)


def test_the_control_says_the_target_as_often_and_is_the_head_with_that_bias() -> None:
    head, rng = start(), np.random.default_rng(3)
    X, y, target = rng.normal(size=(300, D)), rng.integers(0, K, 300), 2
    _, logits = original(head, head.z(X), torch.from_numpy(y))
    control = Control(target, *margins(logits, target), y)
    for said in (0, 1, 17, 120):
        shift = control.matching(said)
        bias = np.eye(K)[target] * shift
        predicted = head.changed(np.zeros((K, D)), bias).predict(X)
        assert np.count_nonzero(predicted[y != target] == target) == said
        made = control.head(shift, control.margin[y == target])
        assert made.top1.value == pytest.approx((predicted == y).mean())
        assert made.others is not None and made.others.value == (predicted[y == target] == target).mean()
    stop = control.margin[:10]
    assert np.count_nonzero(control.reaching(stop, 0.9) > stop) == 9 or control.reaching(stop, 0.9) == 0


def made(folder: Path, truth: str) -> tuple[manifests.Manifest, embedx.FeatureCache, Model]:
    """Data in which what a repair can learn is known, and a head that fails on the concept.

    Every class has a direction of its own. Images of the target do not show it to the head: those of the concept have
    a direction that is theirs alone (concept) or that all images of the class have (class); or none, and stand
    nearer to the target than others do by chance alone (more).
    """
    rng, rows = np.random.default_rng(0), []
    for split, n in COUNTS.items():
        for label in range(K):
            rows += [(f"c{label}", "usual", split)] * n
        rows += [("c1", "odd", split)] * n
    words = list(zip(*rows, strict=True))
    ids = [f"{i:05d}" for i in range(len(rows))]
    manifest = manifests.build("made", dict(zip(("id", "label", "look", "split"), [ids, *words], strict=True)))
    X = 0.3 * rng.normal(size=(len(rows), D))
    y, odd = manifest.labels, manifest.codes["look"] == manifest.values["look"].index("odd")
    seen = np.where(y == 1, rng.integers(0, K, len(y)) if truth == "more" else 0, y)
    X[np.arange(len(y)), seen] += np.where(y == 1, 1.0, 2.0)
    if truth == "class":
        X[y == 1, 10] += 4
    if truth == "concept":
        X[odd, 11] += 4
    if truth == "more":
        X[:, 12] += 3
    cache = write(Workspace(folder), manifest, "made", X.astype(np.float32))
    identity = {"weights": "digest of made"}
    numbers = Affine.plain(3.0 * np.eye(K, D) * (np.arange(K) != 1)[:, None], np.zeros(K))
    return (
        manifest,
        cache,
        Model(ModelName("made", "plain"), "made", manifest.classes, manifest.classes, identity, numbers),
    )


def solved(folder: Path, truth: str, **settings: object) -> Repaired:
    manifest, cache, model = made(folder, truth)
    options = {"shots": (8,), "classes": (0,) if truth == "more" else (K,), "rates": (0.05,), "seeds": 4}
    return repair_head(manifest, cache, model, "look=odd", "c1", RepairSettings(**(options | settings)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("truth", "verdict"), [
    ("class", "class"), ("concept", "concept"), ("more", "says the target more"),
])  # fmt: skip
def test_what_it_learned_is_what_there_was_to_learn(tmp_path: Path, truth: str, verdict: str) -> None:
    answer = solved(tmp_path, truth).record.answer
    assert answer.verdict == verdict, answer


def test_one_seed_cannot_tell(tmp_path: Path) -> None:
    answer = solved(tmp_path, "class", seeds=1).record.answer
    assert answer.verdict == "cannot tell" and "ask for several (--seeds)" in answer.sentence


def test_the_record_and_the_head_come_back_as_they_were(tmp_path: Path) -> None:
    done = solved(tmp_path / "cache", "concept", pulls=(Restraint(), Restraint("kl", 1.0)), shots=(1, 8))
    page, file = publish(done, tmp_path / "out")
    assert KIND.read(tmp_path / "out" / FILE) == done.record
    text = page.read_text()
    assert done.record.answer.sentence.partition(":")[0] in text and text.count("<svg") == 8
    X = np.random.default_rng(1).normal(size=(50, D)).astype(np.float32)
    back = saved.load_model(file)
    assert np.array_equal(back.probabilities(X), done.model.probabilities(X)) and back.run is None
    assert len(done.record.outcomes) == len(done.record.grid) * 4


@pytest.mark.parametrize("images", [9, 25, 60])
def test_images_that_fit_stop_and_report_are_disjoint_and_all_there(images: int) -> None:
    division = Division(images, 5, None)
    parts = [division.drawn(seed) for seed in range(6)]
    for fit, stop, report in parts:
        assert sorted(np.concatenate([fit, stop, report])) == list(range(images))
        assert len(fit) == 5 and len(stop) >= 1 and len(report) >= 2
    assert len({tuple(fit) for fit, _, _ in parts}) == 6


BAD = [
    ({"target": "c9"}, "the head does not know the class 'c9': did you mean"),
    ({"concept": "look=ood"}, "look is never 'ood': did you mean 'odd'"),
    ({"concept": "lok=odd"}, "made has no attribute 'lok': did you mean 'look'"),
    ({"concept": "odd"}, "no folder and no file of that name, and no ATTRIBUTE=VALUE; attributes of made: look"),
    ({"concept": "look=odd", "target": "c0"}, "has no image of 'c0' with features"),
    ({"shots": (400,)}, "look=odd has 202 images, and 400 of them would be fitted on"),
    ({"classes": (2, 5)}, "one image of each of 5 classes: the head knows 4; ask for up to 4"),
    ({"rates": (0.0,)}, "learning rates are 0, expected numbers above 0"),
    ({"rates": (1e38,), "pulls": (Restraint("l2", 1e9),)}, "overflows; name smaller ones"),
    ({"concept": "FOLDER"}, "holds no image; name a folder with images of the concept"),
    ({"concept": "EMPTY"}, "is empty, expected a file with an id of made on each line"),
    ({"concept": "IDS"}, "names 1 ids that made does not have, such as '00001x': did you mean"),
    ({"concept": "BYTES"}, "is no UTF-8 text"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD, ids=[m[:24] for _, m in BAD])
def test_what_cannot_be_done_is_refused_in_words(tmp_path: Path, change: dict[str, object], message: str) -> None:
    manifest, cache, model = made(tmp_path / "cache", "class")
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "EMPTY").write_text("\n")
    (tmp_path / "IDS").write_text("00001x\n")
    (tmp_path / "BYTES").write_bytes(b"\xff\xfe\x00")
    words = {"concept": "look=odd", "target": "c1"} | {k: v for k, v in change.items() if k in ("concept", "target")}
    if (tmp_path / str(words["concept"])).exists():
        words["concept"] = str(tmp_path / str(words["concept"]))
    with pytest.raises(EmbedxError, match=message.replace("(", r"\(")):
        options = {"shots": (2,), "seeds": 1} | {k: v for k, v in change.items() if k not in words}
        repair_head(manifest, cache, model, str(words["concept"]), str(words["target"]), RepairSettings(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["l1:3", "l2", "kl:0", "kl:x", "none:2", "kl:inf"])
def test_what_is_no_pull_is_refused(text: str) -> None:
    with pytest.raises(HeadError, match="is no pull"):
        Restraint.parse(text)
    assert str(Restraint.parse("kl:0.5")) == "kl:0.5" and Restraint.parse("none") == Restraint()


def test_the_command_repairs_and_predict_takes_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(tmp_path / "cache")
    write(workspace, WHOLE, ONE, features(WHOLE), [3])
    manifests.save(WHOLE, workspace.dataset("pets"))
    run = lambda *words: CliRunner().invoke(main, ["--cache", "cache", *words])  # noqa: E731
    words = ("repair", "pets", "-b", f"{ONE}=plain", "--concept", "place=in", "--target", "dog", "--seeds", "2")
    done = run(*words, "--shots", "5", "--lr", "0.1", "--pull", "none,l2:0.1")
    assert done.exit_code == 0, done.output
    assert "bias alone, matched" in done.output and "wrote results/pets/repair/repair.html" in done.output
    head = "results/pets/repair/pets.tiny-one.plain.repaired.safetensors"
    assert run("predict", head, "pets").exit_code == 0
    for wrong, message in (
        (("--shots", "two"), "'two' are not whole numbers"), (("--classes", "9"), "the head knows 2"),
        (("-b", "tiny:two"), "has no features of 'tiny:two'"), (("--pull", "l3:1"), "is no pull"),
    ):  # fmt: skip
        refused = run(*words, *wrong)
        assert refused.exit_code in (1, 2) and message in refused.output, refused.output
