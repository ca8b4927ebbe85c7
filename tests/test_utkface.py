"""UTKFace: facts from file names, the malformed names of the published set, and a split that stays."""

import numpy as np
import pytest

from embedx.data.manifest import SPLITS
from embedx.data.prepare import prepare
from embedx.datasets import utkface
from embedx.errors import ManifestError
from embedx.workspace import Workspace

MALFORMED = {
    "24_0_1_20170116220224657 .jpg.chip.jpg": ("male", "Black"),
    "55_0_0_20170116232725357jpg.chip.jpg": ("male", "White"),
    "39_1_20170116174525125.jpg.chip.jpg": None,
    "61_1_20170109142408075.jpg.chip.jpg": None,
    "61_1_20170109150557335.jpg.chip.jpg": None,
}


@pytest.fixture
def faces(tmp_path):
    root = tmp_path / "UTKFace"
    (root / "part1").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(600):
        age, gender, race = rng.integers(1, 117), rng.integers(2), rng.integers(5)
        (root / ("part1" if i % 2 else ".") / f"{age}_{gender}_{race}_{20170101000000000 + i}.jpg.chip.jpg").touch()
    for name in MALFORMED:
        (root / name).touch()
    return root


def test_facts_come_from_the_names_and_malformed_ones_are_read_or_left_out(faces):
    manifest = utkface.read(faces)
    assert len(manifest) == 602
    for row, file in enumerate(manifest.ids):
        name = file.rpartition("/")[2]
        gender, race = MALFORMED.get(name) or (("male", "female")[int(name.split("_")[1])], None)
        assert manifest.classes[manifest.labels[row]] == gender
        expected = race or utkface.VALUES["race"][int(name.split("_")[2])]
        assert manifest.values["race"][manifest.codes["race"][row]] == expected
    (remark,) = manifest.remarks
    assert remark.startswith("3 files left out") and "39_1_20170116174525125.jpg.chip.jpg" in remark


def test_the_split_is_stratified_and_depends_on_the_seed_only(faces, tmp_path):
    first, again, other = utkface.read(faces), utkface.read(faces), utkface.read(faces, seed="1")
    assert first.digest == again.digest != other.digest
    assert first.version == other.version, "another split must not cost an extraction"
    shares = np.bincount(first.splits) / len(first)
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.04)
    for group in np.unique(first.groups):
        part = np.bincount(first.splits[first.groups == group], minlength=len(SPLITS))
        assert part[0] > part[2] > 0


def test_ages_are_binned_and_other_labels_can_be_asked_for(faces):
    manifest = utkface.read(faces, label="race", attributes=("age", "gender"))
    assert manifest.classes == utkface.VALUES["race"] and manifest.grouping == ("age", "gender")
    for file, code in zip(manifest.ids, manifest.codes["age"], strict=True):
        age = int(file.rpartition("/")[2].split("_")[0])
        assert code == (age > 17) + (age > 39) + (age > 59)


def test_prepare_says_what_was_left_out(faces, tmp_path):
    _, remarks = prepare(Workspace(tmp_path / "cache"), "utkface", faces, {})
    assert remarks[0].startswith("utkface: 3 files left out")


def test_mistakes(faces, tmp_path):
    with pytest.raises(ManifestError, match="UTKFace has no 'sex': known: age, gender, race"):
        utkface.read(faces, label="sex")
    with pytest.raises(ManifestError, match="seed 'x' of the split is no whole number"):
        utkface.read(faces, seed="x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="holds no file named like .*is it UTKFace's folder"):
        utkface.read(tmp_path / "empty")
