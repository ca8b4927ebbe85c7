"""MNIST-1D: the published signals, spikes as they are described, and every row read back as it was made."""

import hashlib

import numpy as np
import pytest
from scipy.stats import kstest, truncnorm
from sklearn.linear_model import LogisticRegression

from embedx.data.images import decode
from embedx.data.prepare import prepare, source_of
from embedx.datasets import mnist1d
from embedx.datasets._mnist1d import TRAIN, on_the_published_scale, signals
from embedx.errors import ManifestError, UnknownName
from embedx.extractors import cnn1d
from embedx.workspace import Workspace

TRAINED = (398, 396, 411, 394, 394, 402, 401, 404, 402, 398)
TESTED = (102, 104, 89, 106, 106, 98, 99, 96, 98, 102)
# Of x rounded to nine digits, as float64. Taken from the public generator (mnist1d 0.0.2.post1, make_dataset at its
# defaults, numpy 2.4.6, scipy 1.17.1), whose x and y are ours bit for bit; of its y the counts above.
DIGEST = "21a3ea1d1486db5c6924ad70f9a239263195590ecb65735e60a36fd166d9045e"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The dataset at its defaults, its rows as they are read back, and the manifest."""
    workspace = Workspace(tmp_path_factory.mktemp("cache"))
    manifest, remarks = prepare(workspace, "mnist1d", None, {})
    assert not remarks
    source = source_of(workspace, manifest)
    rows = np.stack([decode(source, row_id, "vector").value for row_id in manifest.ids])
    return manifest, rows


def of_split(manifest, split, spike=None):
    rows = manifest.splits == mnist1d.CODE_OF[split]
    return np.flatnonzero(rows if spike is None else rows & (manifest.codes["spike"] == spike))


def test_signals_are_the_published_ones():
    found = signals()
    assert tuple(np.bincount(found.y[:TRAIN])) == TRAINED
    assert tuple(np.bincount(found.y[TRAIN:])) == TESTED
    assert hashlib.sha256(np.round(found.x, 9).tobytes()).hexdigest() == DIGEST
    assert found.x.mean() == pytest.approx(0, abs=1e-12)
    assert found.x.std() == pytest.approx(1, abs=1e-12)


def test_a_linear_head_on_the_signals_is_as_poor_as_published():
    found = signals()
    head = LogisticRegression(max_iter=2000).fit(found.x[:TRAIN], found.y[:TRAIN])
    assert 0.3 < head.score(found.x[TRAIN:], found.y[TRAIN:]) < 0.35


def test_further_signals_are_on_the_scale_of_the_published_ones():
    further = signals(43)
    assert np.allclose(on_the_published_scale(signals()), signals().x)
    assert np.allclose(
        on_the_published_scale(further) * signals().std + signals().mean, further.x * further.std + further.mean
    )
    assert not np.isin(further.x[:, 0], signals().x[:, 0]).any()


def test_rows_are_as_described(made):
    manifest, rows = made
    train, val = of_split(manifest, "train"), of_split(manifest, "val")
    assert rows.dtype == np.float32
    assert tuple(np.bincount(manifest.labels[train])) == TRAINED
    assert tuple(np.bincount(manifest.labels[val])) == (100,) * 10
    assert {*manifest.codes["spike"][val]} == {0}
    added = rows[train] - signals().x[:TRAIN]
    spiked = manifest.codes["spike"][train] == 1
    assert 0.88 < spiked.mean() < 0.92
    assert not added[~spiked].any(where=np.abs(added[~spiked]) > 1e-5)
    blocks = added[spiked].reshape(-1, 10, 4)
    assert np.allclose(np.delete(blocks, 0, 1).sum() + blocks[:, 0].sum(), blocks.sum())
    own = blocks[np.arange(len(blocks)), manifest.labels[train][spiked]]
    assert np.abs(blocks).sum() == pytest.approx(np.abs(own).sum(), rel=1e-4)
    assert np.ptp(own, axis=1).max() < 1e-5
    # v is normal about 2 with deviation 1, truncated to v >= 0.
    assert kstest(own[:, 0], truncnorm(-2, np.inf, loc=2).cdf).pvalue > 0.01


def test_every_test_signal_is_there_three_times(made):
    manifest, rows = made
    clean, own, other = (of_split(manifest, "test", code) for code in range(3))
    y = manifest.labels[clean]
    assert np.allclose(rows[clean], signals().x[TRAIN:], atol=1e-6)
    for spiked, whose in ((own, y), (other, manifest.codes["spike_class"][other] - 1)):
        assert np.array_equal(manifest.labels[spiked], y)
        height = (rows[spiked] - rows[clean]).reshape(-1, 10, 4)
        assert np.array_equal(np.abs(height).sum(2).argmax(1), whose)
    assert not (manifest.codes["spike_class"][other] - 1 == y).any()
    assert np.array_equal(manifest.codes["spike_class"][own] - 1, y)


def test_more_spikes_and_larger_ones_are_the_same_ones_and_more():
    (few, _), (many, _), (large, _) = (mnist1d.training_rows(p, size) for p, size in ((0.5, 2), (0.9, 2), (0.9, 4)))
    clean = signals().x[:TRAIN].astype(np.float32)
    spiked = [(x != clean).any(1) for x in (few, many, large)]
    assert spiked[1][spiked[0]].all()
    assert np.array_equal(few[spiked[0]], many[spiked[0]])
    assert np.array_equal(spiked[1], spiked[2])
    assert ((large - many)[spiked[1]].max(1) > 0).all()


def test_the_minority_alone(tmp_path):
    options = {"probability": "0.8", "retrain": "minority", "groups": "class"}
    manifest, _ = prepare(Workspace(tmp_path), "few=mnist1d", None, options)
    train, val = of_split(manifest, "train"), of_split(manifest, "val")
    assert len(train) + len(val) == TRAIN
    assert {*manifest.codes["spike"][train]} == {1}
    assert {*manifest.codes["spike"][val]} == {0}
    names = {i.rpartition("/")[2] for i in manifest.ids[np.r_[train, val]]}
    assert len(names) == TRAIN
    assert manifest.grouping == ("class",)
    assert np.array_equal(np.unique(manifest.groups), 11 * np.arange(10))


@pytest.mark.parametrize(("options", "said"), [
    ({"probability": "1.2"}, "from 0 to 1"), ({"probability": "often"}, "from 0 to 1"),
    ({"size": "-1"}, "from 0 to 100"),
    ({"block": "5"}, "from 1 to 4"), ({"block": "0"}, "from 1 to 4"), ({"retrain": "0"}, "from 0.005 to 1 or minority"),
    ({"retrain": "minorty"}, "or minority"), ({"seed": "x"}, "whole number"),
    ({"groups": "spikes"}, "did you mean 'spike'"),
    ({"retrain": "minority", "probability": "1"}, "no training signal is without a spike"),
    ({"retrain": "minority", "probability": "0"}, "no training signal is with a spike"),
])  # fmt: skip
def test_options_are_checked(tmp_path, options, said):
    with pytest.raises(ManifestError, match=said):
        prepare(Workspace(tmp_path), "mnist1d", None, options)


def test_a_misspelt_option_is_told(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'probability'"):
        prepare(Workspace(tmp_path), "mnist1d", None, {"probabilty": "1"})


def test_a_folder_without_the_signals_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="leave --root out"):
        prepare(Workspace(tmp_path / "cache"), "mnist1d", tmp_path, {})


@pytest.mark.parametrize(("model", "least", "most"), [("p0", 0.94, 0.96), ("p0.9", 0.68, 0.71)])
def test_the_networks_are_as_good_as_they_were_found(model, least, most):
    import torch

    backbone = cnn1d.load(model)
    x, y = signals().x[TRAIN:].astype(np.float32), signals().y[TRAIN:]
    weight, bias = backbone.head
    right = (backbone.encode(torch.from_numpy(x), "cpu") @ weight.T + bias).argmax(1) == y
    assert least < right.mean() < most


def test_another_network_is_refused():
    with pytest.raises(LookupError, match=r"cnn1d has no model 'p1'; it has p0, p0\.9"):
        cnn1d.load("p1")
