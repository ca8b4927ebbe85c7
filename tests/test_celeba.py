"""CelebA: the official text files and Kaggle's tables give the same manifest."""

import itertools

import numpy as np
import pytest

from embedx.data.manifest import SPLITS
from embedx.datasets import celeba
from embedx.errors import ManifestError

NAMES = ("Blond_Hair", "Male", "Smiling")


def write(root, rows, kind):
    """rows: (file, split number, one of 1 and -1 per attribute)."""
    root.mkdir(exist_ok=True)
    if kind == "official":
        lines = [f"{r[0]}  " + " ".join(f"{v:2d}" for v in r[2:]) for r in rows]
        (root / "list_attr_celeba.txt").write_text("\n".join([str(len(rows)), " ".join(NAMES) + " ", *lines]) + "\n")
        (root / "list_eval_partition.txt").write_text("".join(f"{r[0]} {r[1]}\n" for r in rows))
    else:
        table = [",".join(map(str, (r[0], *r[2:]))) for r in rows]
        (root / "list_attr_celeba.csv").write_text("\n".join([",".join(("image_id", *NAMES)), *table]) + "\n")
        partition = "".join(f"{r[0]},{r[1]}\n" for r in rows)
        (root / "list_eval_partition.csv").write_text("image_id,partition\n" + partition)
    return root


ROWS = [(f"{i:06d}.jpg", s, *v) for i, (s, *v) in enumerate(itertools.product((0, 1, 2), *[(1, -1)] * 3), 1)]


def test_both_layouts_agree_with_the_rows(tmp_path):
    official, kaggle = (celeba.read(write(tmp_path / kind, ROWS, kind)) for kind in ("official", "kaggle"))
    assert official.digest == kaggle.digest
    assert official.group_names[1] == "not Blond_Hair/Male"
    for row, (file, split, blond, male, _) in enumerate(ROWS):
        assert official.ids[row] == f"img_align_celeba/{file}"
        assert SPLITS[official.splits[row]] == ("train", "val", "test")[split]
        assert official.groups[row] == 2 * (blond == 1) + (male == 1)


@pytest.mark.slow
def test_the_published_counts_have_no_differences_and_one_moved_face_two(tmp_path):
    rows = []
    for s, split in enumerate(SPLITS):
        for group, n in enumerate(celeba.COUNTS[split]):
            values = (1 if group // 2 else -1, 1 if group % 2 else -1, 1)
            rows += [(f"{len(rows) + i:06d}.jpg", s, *values) for i in range(n)]
    assert len(rows) == 202_599
    manifest = celeba.read(write(tmp_path / "whole", rows, "kaggle"))
    assert manifest.differences() == []
    shares = np.bincount(manifest.groups[manifest.splits == 0]) / 162_770
    assert shares.round(5).tolist() == [0.44006, 0.41085, 0.14057, 0.00852]
    rows[0] = (*rows[0][:2], 1, -1, 1)
    assert len(celeba.read(write(tmp_path / "whole", rows, "kaggle")).differences()) == 2


def test_other_columns_and_kaggles_doubled_folder(tmp_path):
    root = write(tmp_path / "k", ROWS, "kaggle")
    (root / "img_align_celeba" / "img_align_celeba").mkdir(parents=True)
    manifest = celeba.read(root, label="Smiling", attributes=("Male", "Blond_Hair"))
    assert manifest.classes == ("not Smiling", "Smiling") and manifest.grouping == ("Male", "Blond_Hair")
    assert manifest.ids[0].startswith("img_align_celeba/img_align_celeba/")
    assert manifest.expected == {}


def test_mistakes(tmp_path):
    with pytest.raises(ManifestError, match=r"neither list_attr_celeba.txt nor list_attr_celeba.csv; --root must be"):
        celeba.read(tmp_path)
    with pytest.raises(ManifestError, match="no attribute 'Blonde_Hair': did you mean 'Blond_Hair'"):
        celeba.read(write(tmp_path / "a", ROWS, "official"), label="Blonde_Hair")
    with pytest.raises(ManifestError, match="found the code '0'; expected partitions 0, 1, 2 and attributes 1, -1"):
        celeba.read(write(tmp_path / "b", [(*ROWS[0][:2], 0, 1, 1), *ROWS[1:]], "kaggle"))
    root = write(tmp_path / "c", ROWS, "official")
    (root / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    with pytest.raises(ManifestError, match="does not list '000002.jpg', the attributes do; fetch both again"):
        celeba.read(root)
    rows = [f"{r[0]} {r[1]}" for r in ROWS]
    (root / "list_eval_partition.txt").write_text("\n".join([*rows, "000099.jpg 0"]) + "\n")
    with pytest.raises(
        ManifestError, match="attributes do not list '000099.jpg', the partition does; fetch both again"
    ):
        celeba.read(root)
    file = root / "list_attr_celeba.txt"
    file.write_text("\n".join(file.read_text().splitlines()[:-3]) + "\n")
    with pytest.raises(
        ManifestError, match=r"list_attr_celeba.txt lists 21 images and says there are 24; fetch it again"
    ):
        celeba.read(root)


def test_whose_face_it_is_can_be_the_cluster(tmp_path):
    root = write(tmp_path / "official", ROWS, "official")
    with pytest.raises(ManifestError, match="holds neither identity_CelebA.txt nor identity_CelebA.csv"):
        celeba.read(root, cluster="identity")
    with pytest.raises(ManifestError, match="CelebA has no cluster 'Male'; use -O cluster=identity"):
        celeba.read(root, cluster="Male")
    people = {file: str(100 + i // 3) for i, (file, *_) in enumerate(ROWS)}
    (root / "identity_CelebA.txt").write_text("".join(f"{f} {people[f]}\n" for f in sorted(people, reverse=True)))
    subjects = celeba.read(root, cluster="identity").subjects
    assert [subjects.names[c] for c in subjects.codes] == [people[file] for file, *_ in ROWS]
    (root / "identity_CelebA.txt").write_text("000001.jpg 7\n")
    with pytest.raises(ManifestError, match="has identity ''"):
        celeba.read(root, cluster="identity")
