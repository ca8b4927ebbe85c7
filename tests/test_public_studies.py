"""The studies of public data, end to end on miniature copies of the published layouts: images and weights come from a
file server on this machine, weights are random numbers in the published formats.
"""

import re
import tomllib
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image
from test_celeba import ROWS
from test_celeba import write as write_celeba
from test_cli_data import birds, embedx, folder  # noqa: F401  fixtures
from test_imagenet import SYNSETS, numbered
from test_robust import wrapped
from test_spuriosity_salient import table

from embedx.datasets import celeba, waterbirds
from embedx.extractors import ALIASES, robust
from embedx.report import published as figures
from embedx.studies import imagenet_spuriosity
from embedx.studies.engine.conduct import conduct
from embedx.studies.engine.file import FOLDER, read
from embedx.workspace import Workspace

PUBLIC = {"waterbirds": 11_788, "celeba": 202_599, "utkface": 23_705, "imagenet-spuriosity": 1_331_167}


@pytest.mark.parametrize("name", PUBLIC)
def test_what_the_header_expects_is_what_weights_and_features_take(name):
    text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    backbones = [ALIASES[b] for b in tomllib.loads(text)["backbones"]]
    weights, features = map(float, re.findall(r"weights ([\d.]+) GB, fetched once; features ([\d.]+) GB", text)[0])
    assert weights == pytest.approx(sum(b.download_mb for b in backbones) / 1000, abs=0.05)
    assert features == pytest.approx(2 * PUBLIC[name] * sum(b.dim for b in backbones) / 1e9, abs=0.05)
    assert sum(map(sum, waterbirds.COUNTS.values())) == PUBLIC["waterbirds"]
    assert sum(map(sum, celeba.COUNTS.values())) == PUBLIC["celeba"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Weights of two networks on a server, from which torch's own download fetches; no hash of theirs is known."""
    torch.manual_seed(0)
    served = tmp_path / "weights"
    served.mkdir()
    torch.save(torchvision.models.resnet18().state_dict(), served / "resnet18-f37072fd.pth")
    network = torchvision.models.resnet50().state_dict()
    torch.save({"model": wrapped(network), "epoch": 105}, served / robust.FILES["madry-l2-eps3"])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(served)))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    fetch, fetched = torch.hub.download_url_to_file, []

    def download(url, target, hash_prefix=None, progress=True):
        fetched.append(url.rpartition("/")[2])
        fetch(f"http://127.0.0.1:{server.server_port}/{fetched[-1]}", target, None, progress=False)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    yield fetched
    server.shutdown()
    thread.join()
    server.server_close()


def run(name, backbones, heads=("plain", "nearest-mean", "group-balanced"), **of_table):
    """The answer of the study as it ships, with these backbones and heads."""
    study = replace(read(name), backbones=backbones, heads=heads, seeds=1)
    tables = {key: replace(table, prompts={}, **of_table) for key, table in study.datasets.items()}
    answer = conduct(replace(study, datasets=tables), Workspace(), Path("results") / name)
    for file in ("report.html", "study.json"):
        assert (Path("results") / name / file).stat().st_size > 1000
    return answer


def tables(answer):
    return {title: frame for section in answer.sections for title, frame in section.tables}


def picture(path, rng, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 100, (24, 24, 3)) + np.asarray(shade)
    Image.fromarray(pixels.astype(np.uint8)).save(path, "JPEG")


@pytest.mark.slow
def test_waterbirds_from_the_server_to_the_answer(birds, hub, monkeypatch):  # noqa: F811
    embedx("data", "get", "waterbirds")
    answer = run("waterbirds", ("resnet50=resnet18",))
    assert hub == ["resnet18-f37072fd.pth"]
    found = tables(answer)["Heads on frozen features, published and here"]
    assert set(found["features"]) == {"ResNet-50"} and set(found["head"]) == {"plain", "plain, again"}
    assert set(found["intervals overlap"]) == {"not the same test rows"}
    assert "The test groups here (2, 2, 2, 2) are not those" in answer.summary
    assert "Verdicts" in tables(answer)
    monkeypatch.setattr(figures, "TEST_GROUPS", {"waterbirds": (2, 2, 2, 2)})  # as if these were the published rows
    again = run("waterbirds", ("resnet50=resnet18",))
    found = tables(again)["Heads on frozen features, published and here"]
    assert set(found["intervals overlap"]) <= {"yes", "no"}
    trained = [row for row in figures.published("waterbirds") if row.kind in ("end", "last")]
    assert len(tables(again)["Trained networks"]) == len(trained)
    assert len(hub) == 1


@pytest.mark.slow
def test_faces_in_their_published_layouts(folder, hub):  # noqa: F811
    rng = np.random.default_rng(0)
    rows = [(f"{i:06d}.jpg", s, *rest) for i, (_, s, *rest) in enumerate(2 * ROWS, 1)]
    root = write_celeba(folder / "celeba", rows, "official")
    for name, _, blond, male, _ in rows:
        picture(root / "img_align_celeba" / name, rng, (60 * (blond > 0), 60 * (male > 0), 0))
    for i in range(64):
        gender, race = i % 2, i // 2 % 2
        name = f"{20 + i % 50}_{gender}_{race}_{20170101000000000 + i}.jpg.chip.jpg"
        picture(folder / "UTKFace" / name, rng, (60 * gender, 60 * race, 0))
    for name in ("celeba", "UTKFace"):  # as the headers say: once, so that the place of the files is known
        embedx("extract", name.lower(), "--root", name, "-b", "robust-resnet50=resnet18")
    for name in ("celeba", "utkface"):
        answer = run(name, ("robust-resnet50=resnet18",))
        assert "Is the plain head enough?" in [section.question for section in answer.sections]
    found = tables(answer)["Heads on frozen features, published and here"]
    assert found[["features", "figure"]].to_numpy().tolist() == [["adversarially robust ResNet-50", "average"]]


@pytest.mark.slow
def test_imagenet_is_ranked_measured_and_tuned(folder, hub):  # noqa: F811
    rng, root = np.random.default_rng(0), folder / "imagenet"
    for c, synset in enumerate(SYNSETS):
        for i in range(8):
            picture(root / "train" / synset / f"{synset}_{i}.JPEG", rng, (30 * c, 80 * (i % 4 > 0), 0))
        for i in range(6):
            picture(root / "val" / synset / numbered(6 * c + i + 1), rng, (30 * c, 80 * (i % 2), 0))
    study = partial(run, "imagenet-spuriosity", ("robust-resnet50", "resnet18"), ("nearest-mean",), root="imagenet",
                    options={"holdout": "0.25"})  # fmt: skip
    with pytest.raises(imagenet_spuriosity.StudyError, match=r"discover_spurious_features.csv does not exist: put the"):
        study()
    votes = [
        [str(worker), synset, str(c), str(7 * c + j), str(j + 1), "background" if j < 2 else "main_object", "4.0", ""]
        for c, synset in enumerate(SYNSETS) for j in range(5) for worker in range(5)
    ]  # fmt: skip
    table(root / imagenet_spuriosity.VOTES, votes)
    answer = study()
    assert [name.partition("?")[0] for name in hub] == [robust.FILES["madry-l2-eps3"], "resnet18-f37072fd.pth"]
    shown = tables(answer)
    assert list(shown["Gaps"]["model"]) == ["robust-resnet50=nearest-mean", "resnet18=nearest-mean"]
    assert list(shown["Tuned heads"]["tuned on"])[:2] == ["untouched", "lowest"]
    assert list(shown["What models share"]["published"]) == ["0.69", "3.1", "0.157"]
    assert all(isinstance(frame, pd.DataFrame) for frame in shown.values())
