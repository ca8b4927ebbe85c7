"""SpuCoMNIST: the IDX files, what is painted and what is not, the counts, and folders that cannot be mixed up."""

import gzip
import math
import shutil
from concurrent.futures import ThreadPoolExecutor

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from embedx.data.prepare import prepare
from embedx.datasets import _idx, _mnist, spuco_mnist
from embedx.datasets.spuco_mnist import DIFFICULTIES, HUES
from embedx.errors import ManifestError
from embedx.evaluation.metrics import evaluate
from embedx.plugins import DATASETS, summary
from embedx.workspace import Workspace

TRAIN, TEST, HELD = 700, 300, 140


def idx(array):
    head = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


def write(root, digits, values, *, train=TRAIN, pack=False):
    """MNIST in miniature: the first scans for train, the others for test."""
    root.mkdir(parents=True, exist_ok=True)
    for stem, part in (("train", slice(train)), ("t10k", slice(train, None))):
        for kind, array in (("images-idx3", digits[part]), ("labels-idx1", values[part])):
            data = idx(array)
            (root / f"{stem}-{kind}-ubyte{'.gz' * pack}").write_bytes(gzip.compress(data, 1) if pack else data)
    return root


def scans():
    digits = load_digits()
    pixels = np.kron(np.rint(digits.images * 255 / 16), np.ones((3, 3)))[: TRAIN + TEST]
    return np.pad(pixels, ((0, 0), (2, 2), (2, 2))).astype(np.uint8), digits.target[: TRAIN + TEST].astype(np.uint8)


@pytest.fixture(scope="module")
def scanned():
    return scans()


@pytest.fixture
def mnist(tmp_path, scanned):
    return write(tmp_path / "mnist", *scanned)


def picture(manifest, i):
    with Image.open(f"{manifest.root}/{manifest.ids[i]}") as image:
        assert image.mode == "RGB" and image.size == (28, 28)
        return np.asarray(image)


def origin(scanned, row_id):
    """The scan behind an image."""
    folder, _, file = row_id.partition("/")
    return scanned[0][int(file[:5]) + TRAIN * folder.endswith("-test")]


def words(manifest, column="label"):
    if column == "label":
        return np.take(manifest.classes, manifest.labels)
    return np.take(manifest.values[column], manifest.codes[column])


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3), pack=st.booleans(), cut=st.integers(1, 40),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_idx_is_read_whole_or_not_at_all(tmp_path_factory, shape, pack, cut, seed):
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path_factory.mktemp("idx") / "train-images-idx3-ubyte"
    squeeze = (lambda data: gzip.compress(data, 1)) if pack else (lambda data: data)
    path.write_bytes(squeeze(idx(array)))
    found = _idx.read(path, array.ndim)
    assert found.dtype == np.uint8 and np.array_equal(found, array)
    for data in (squeeze(idx(array)[:-cut]), squeeze(idx(array) + bytes(cut)), squeeze(idx(array))[:-cut]):
        path.write_bytes(data)
        with pytest.raises(ManifestError, match=r"should hold|is damaged|begins with|claims"):
            _idx.read(path, array.ndim)
    path.write_bytes(squeeze(idx(array)))
    with pytest.raises(ManifestError, match=rf"begins with 00 00 08 0{array.ndim}; expected 00 00 08"):
        _idx.read(path, array.ndim + 1)


def test_idx_that_claims_or_unpacks_to_too_much_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "bomb"
    path.write_bytes(bytes((0, 0, 8, 3)) + b"\x7f\xff\xff\xff" * 3)
    with pytest.raises(ManifestError, match=r"claims 9,903,\S+ values .*expected 1 to 536,870,912"):
        _idx.read(path, 3)
    path.write_bytes(gzip.compress(idx(np.zeros(10)) + bytes(50_000_000), 1))
    taken = []
    real = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: taken.append(size) or real(self, size))
    with pytest.raises(ManifestError, match="should hold 10 values and holds more"):
        _idx.read(path, 1)
    assert 0 <= min(taken) <= max(taken) <= 11
    path.write_bytes(idx(np.zeros((0, 3))))
    with pytest.raises(ManifestError, match="claims 0 values"):
        _idx.read(path, 2)


@pytest.mark.parametrize("where", [".", "raw", "MNIST/raw"])
@pytest.mark.parametrize("pack", [True, False])
def test_mnist_is_found_packed_or_not(tmp_path, scanned, where, pack):
    write(tmp_path / where, *scanned, pack=pack)
    (tmp_path / where / f"t10k-labels-idx1-ubyte{'.gz' * pack}").rename(tmp_path / where / "t10k-labels.idx1-ubyte")
    assert np.array_equal(_idx.mnist(tmp_path, "train")[0], scanned[0][:TRAIN])
    assert np.array_equal(_idx.mnist(tmp_path, "t10k")[1], scanned[1][TRAIN:])


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_only_the_places_of_the_difficulty_are_painted_and_the_digit_stays(mnist, scanned, difficulty):
    manifest = spuco_mnist.read(mnist, difficulty=difficulty.replace("_", "-"))
    side, drawn = DIFFICULTIES[difficulty]
    assert (side, drawn) == {
        "magnitude_large": (28, None), "magnitude_medium": (4, None), "magnitude_small": (2, None),
        "variance_low": (7, None), "variance_medium": (14, 49), "variance_high": (28, 49),
    }[difficulty]  # fmt: skip
    hsv = [np.rint(255 * np.array(mpl.colormaps["hsv"](v)[:3])) for v in np.arange(0, 1, step=1 / 5)]
    square = np.zeros((28, 28), dtype=bool)
    square[:side, :side] = True
    places = []
    for i in range(0, len(manifest), 3):
        image, digit = picture(manifest, i), origin(scanned, manifest.ids[i])
        assert (image[digit > 0] == digit[digit > 0][:, None]).all()
        painted = image.any(axis=2) & (digit == 0)
        assert (image[painted] == hsv[manifest.codes["background"][i]]).all()
        assert not (painted & ~square).any()
        if drawn is None:
            assert (painted == (square & (digit == 0))).all()
        else:
            assert 0 < painted.sum() <= 49
            places.append(painted)
    if drawn is not None:
        assert len({p.tobytes() for p in places}) == len(places), "drawn anew for every image"
        empty = np.mean([(origin(scanned, i) == 0)[:side, :side].mean() for i in manifest.ids])
        assert np.mean([p.sum() for p in places]) == pytest.approx(49 * empty, rel=0.05)
        assert np.any(places, axis=0)[:side, :side].mean() > 0.8, "anywhere in the square"


@pytest.mark.parametrize("k", range(2, 11))
def test_colours_and_their_names_differ_for_any_number_of_classes(mnist, k, tmp_path):
    digits = tuple("0123456789"[:k])
    manifest = spuco_mnist.read(mnist, classes=digits, images=str(tmp_path / "painted"))
    assert manifest.classes == digits and len(set(manifest.values["background"])) == k
    assert set(manifest.values["background"]) <= set(HUES)
    values = np.arange(0, 1, step=1 / k)  # as the authors write it
    colours = [np.rint(255 * np.array(mpl.colormaps["hsv"](v)[:3])) for v in values]
    for c in range(k):
        row = int(np.flatnonzero(manifest.codes["background"] == c)[0])
        assert (picture(manifest, row)[0, 0] == colours[c]).all()


def test_counts_follow_the_correlation_and_val_and_test_are_even(mnist, scanned):
    classes, rho = ("01", "2", "345"), ("0.9", "0.5", "0.77")
    manifest = spuco_mnist.read(mnist, classes=classes, correlation=rho)
    assert manifest.classes == ("0 or 1", "2", "3 or 4 or 5") and manifest.grouping == ("background",)
    counts = manifest.counts()
    assert len(manifest) == np.isin(scanned[1], range(6)).sum()
    for c, name in enumerate(manifest.classes):
        row = [counts[f"train/{name}/{h}"] for h in manifest.values["background"]]
        assert row[c] == int(float(rho[c]) * sum(row)) and min(row) > 0
        for split in ("val", "test"):
            row = [counts[f"{split}/{name}/{h}"] for h in manifest.values["background"]]
            assert max(row) - min(row) <= 1
        drawn = manifest.codes["background"][(manifest.splits == 2) & (manifest.labels == c)]
        assert (drawn != np.arange(len(drawn)) % 3).any(), "in no order that goes with the images"
    for row_id, label in zip(manifest.ids, words(manifest), strict=True):
        folder, _, file = row_id.partition("/")
        assert str(scanned[1][int(file[:5]) + TRAIN * folder.endswith("-test")]) in label


def test_a_classifier_of_the_background_reaches_exactly_the_reported_average(mnist):
    manifest = spuco_mnist.read(mnist, correlation=("0.95",))
    hsv = np.rint(255 * mpl.colormaps["hsv"](np.arange(5) / 5)[:, :3]).astype(int)
    seen = np.array([np.abs(hsv - picture(manifest, i)[0, 0]).sum(1).argmin() for i in range(len(manifest))])
    train, test = manifest.splits == 0, manifest.splits == 2
    sizes = np.bincount(manifest.labels[train])
    reported = sum(int(0.95 * n) for n in sizes) / sizes.sum()
    assert (seen == manifest.labels)[train].mean() == reported
    metrics = evaluate(
        manifest.labels[test], np.eye(5)[seen[test]], manifest.groups[test], classes=manifest.classes,
        group_names=manifest.group_names, group_labels=np.repeat(np.arange(5), 5),
        train_shares=np.bincount(manifest.groups[train], minlength=25) / train.sum(),
    )  # fmt: skip
    assert metrics.adjusted_average.value == pytest.approx(reported, abs=1e-12)
    assert metrics.worst_group.value == 0 and metrics.average.value == pytest.approx(0.2, abs=0.01)


@pytest.mark.slow
def test_the_same_options_paint_the_same_bytes_and_any_other_pixels_have_other_ids(mnist, tmp_path):
    def read(name, **options):
        return spuco_mnist.read(mnist, images=str(tmp_path / name), **options)

    first, again = read("a"), read("b")
    assert first.digest == again.digest and first.version == again.version
    for i in range(0, len(first), 50):
        assert (tmp_path / "a" / first.root / first.ids[i]).read_bytes() == (
            tmp_path / "b" / again.root / again.ids[i]
        ).read_bytes()
    val = tmp_path / "val.txt"
    val.write_text(" ".join(map(str, range(HELD))))
    options = [
        {"seed": "1"}, {"difficulty": "variance_low"}, {"difficulty": "variance_medium"}, {"correlation": ("0.99",)},
        {"core_noise": "0.3"}, {"classes": ("01", "23", "45", "68", "79")}, {"val_indices": str(val)},
    ]  # fmt: skip
    others = [read("a", **o) for o in options]
    known = [first, *others]
    assert len({m.version for m in known}) == len({m.root for m in known}) == len(known)
    assert not any(set(first.ids) & set(m.ids) for m in others), "a cache of other pixels has no row in common"


def test_other_scans_under_the_same_options_are_another_dataset(mnist, scanned, tmp_path):
    first = spuco_mnist.read(mnist)
    digits = scanned[0].copy()
    digits[5, 14, 14] ^= 1
    assert spuco_mnist.read(write(tmp_path / "other", digits, scanned[1])).version != first.version


def test_label_noise_moves_labels_only(mnist):
    clean, noisy = spuco_mnist.read(mnist), spuco_mnist.read(mnist, label_noise="0.2")
    assert (clean.version, list(clean.ids), clean.root) == (noisy.version, list(noisy.ids), noisy.root)
    assert (clean.codes["background"] == noisy.codes["background"]).all() and noisy.grouping == ("background",)
    assert (words(noisy, "clean_label") == words(clean)).all() and "clean_label" not in clean.codes
    moved = words(noisy) != words(clean)
    train = noisy.splits == 0
    assert moved[train].sum() == int(0.2 * train.sum()) and not moved[~train].any()
    assert (noisy.groups == noisy.labels * 5 + noisy.codes["background"]).all()
    assert len(set(zip(noisy.labels[moved], noisy.codes["clean_label"][moved], strict=True))) == 20


def test_core_noise_blanks_three_fifths_of_the_pixels_of_a_share_of_the_training_digits(mnist, scanned):
    clean, noisy = spuco_mnist.read(mnist), spuco_mnist.read(mnist, core_noise="0.4")
    assert clean.version != noisy.version and (clean.codes["background"] == noisy.codes["background"]).all()
    hsv = np.rint(255 * mpl.colormaps["hsv"](np.arange(5) / 5)[:, :3]).astype(np.uint8)
    gone, hit = [], []
    for i, row_id in enumerate(noisy.ids):
        digit, image = origin(scanned, row_id), picture(noisy, i)
        colour = hsv[noisy.codes["background"][i]]
        kept = (image == digit[..., None]).all(axis=2)
        blank = (image == colour).all(axis=2)
        assert (kept | blank).all()
        if not kept[digit > 0].all():
            hit.append(row_id)
            gone.append(blank[digit > 0].mean())
    train = (noisy.splits == 0).sum()
    assert len(hit) == int(0.4 * train) and all("-train/" in h for h in hit)
    assert np.mean(gone) == pytest.approx(0.5 * (1 + math.erf(0.25 / math.sqrt(2))), abs=0.01)


def test_painted_once_and_a_folder_with_holes_is_refused(mnist, monkeypatch):
    first = spuco_mnist.read(mnist)
    with monkeypatch.context() as patch:
        patch.setattr(spuco_mnist, "_write", lambda *_: pytest.fail("painted again"))
        spuco_mnist.read(mnist)
    gone = mnist / first.root / first.ids[7]
    gone.unlink()
    with pytest.raises(ManifestError, match=r"is not whole \(1 images are gone\); delete it, and it is painted again"):
        spuco_mnist.read(mnist)
    shutil.rmtree(first.root)
    assert spuco_mnist.read(mnist).digest == first.digest and gone.is_file()
    (mnist / first.root / spuco_mnist.DONE).unlink()
    with pytest.raises(ManifestError, match="is not whole"):
        spuco_mnist.read(mnist)


def test_of_six_that_prepare_at_once_one_paints(mnist, monkeypatch, tmp_path):
    begun, real = [], spuco_mnist.landing_folder
    monkeypatch.setattr(spuco_mnist, "landing_folder", lambda path: (begun.append(path), real(path))[1])
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: spuco_mnist.read(mnist, images=str(tmp_path / "painted")), range(6)))
    assert len(begun) == 1 and len({m.digest for m in found}) == 1


def test_what_breaks_off_leaves_no_folder(mnist, monkeypatch, tmp_path):
    painted, real = tmp_path / "painted", Image.Image.save

    def full(self, path, **options):
        if len(list(painted.rglob("*.png"))) > 20:
            raise OSError(28, "No space left on device", str(path))
        real(self, path, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(ManifestError, match=r"cannot be written \(No space left on device\).*-O images=FOLDER"):
        spuco_mnist.read(mnist, images=str(painted))
    assert list(painted.glob("[!.]*")) == []
    (tmp_path / "file").touch()
    with pytest.raises(ManifestError, match=r"cannot be written \(Not a directory\)"):
        spuco_mnist.read(mnist, images=str(tmp_path / "file"))


@pytest.mark.parametrize("text", ["3 1 4\n15\n", "\ufeff3,1,4,15", "config = {\n VAL: \n [3, 1, 4,\n 15]}\n"])
def test_a_list_of_validation_images_may_be_given(mnist, tmp_path, text):
    (tmp_path / "list").write_text(text, encoding="utf-8")
    manifest = spuco_mnist.read(mnist, val_indices=str(tmp_path / "list"))
    held = [i.partition("/")[2] for i, s in zip(manifest.ids, manifest.splits, strict=True) if s == 1]
    assert held == ["00001.png", "00003.png", "00004.png", "00015.png"]
    assert not any("published list" in r for r in manifest.remarks)


def test_the_validation_images_are_a_fifth_and_said_not_to_be_the_published_ones(mnist, tmp_path):
    manifest, remarks = prepare(Workspace(tmp_path / "cache"), "spuco-mnist", mnist, {})
    assert (manifest.splits == 1).sum() == HELD and round(spuco_mnist.HELD_OUT * 60_000) == 11_996
    assert any("140 validation images are drawn with seed 0; this is NOT the published list" in r for r in remarks)
    assert any("found 700 train images; MNIST has 60,000" in r for r in remarks)
    with pytest.raises(ManifestError, match="the name 'spuco-mnist' is taken by other rows"):
        prepare(Workspace(tmp_path / "cache"), "spuco-mnist", mnist, {"difficulty": "variance_low"})
    other, _ = prepare(Workspace(tmp_path / "cache"), "low=spuco-mnist", mnist, {"correlation": "0.9,0.8,0.7,0.6,0.5"})
    assert other.name == "low" and other.version != manifest.version
    assert summary(DATASETS, "spuco-mnist").startswith("SpuCoMNIST (Joshi et al. 2023): MNIST digits")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"difficulty": "magnitude_huge"}, "no difficulty 'magnitude_huge': did you mean 'magnitude_large'"),
        ({"correlation": ("0.9", "0.8")}, "correlation=0.9,0.8: expected one share above 0 to 1, or 5 of them"),
        ({"correlation": ("0",)}, "correlation=0: expected one share above 0"),
        ({"correlation": ("nan",)}, "correlation=nan: expected one share"),
        ({"correlation": ()}, "correlation=: expected one share"),
        ({"label_noise": "1.5"}, "label_noise=1.5: expected one share from 0 to 1"),
        ({"core_noise": "x"}, "core_noise=x: expected one share from 0 to 1"),
        ({"classes": ("01", "12")}, "classes=01,12: expected two or more sets of digits"),
        ({"classes": ("0123",)}, "classes=0123: expected two or more sets"),
        ({"classes": ("a", "b")}, "classes=a,b: expected two or more sets"),
        ({"seed": "-1"}, "seed=-1: expected a whole number"),
    ],
)
def test_options_that_make_no_sense(mnist, options, message):
    with pytest.raises(ManifestError, match=message):
        spuco_mnist.read(mnist, **options)
    assert sorted(p.name for p in mnist.iterdir() if p.is_dir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("1 2 x", "holds 'x'; expected numbers of training images, 0 to 699"), ("700", "holds '700'; expected numbers"),
     ("1 1", "holds 2 numbers; expected some of 700, every one once"), ("", "holds 0 numbers")],
)  # fmt: skip
def test_lists_of_validation_images_that_make_no_sense(mnist, tmp_path, text, message):
    (tmp_path / "list").write_text(text)
    with pytest.raises(ManifestError, match=message):
        spuco_mnist.read(mnist, val_indices=str(tmp_path / "list"))


def test_files_that_are_not_mnist(mnist, scanned, tmp_path):
    with pytest.raises(ManifestError, match="list'?.* does not exist; name a file of numbers with -O val_indices="):
        spuco_mnist.read(mnist, val_indices=str(tmp_path / "list"))
    with pytest.raises(ManifestError, match="holds 700 images and .* 699 labels; fetch both again"):
        (mnist / "train-labels-idx1-ubyte").write_bytes(idx(scanned[1][: TRAIN - 1]))
        spuco_mnist.read(mnist)
    (mnist / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(ManifestError, match="holds no train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz; --root"):
        spuco_mnist.read(mnist)
    write(mnist, scanned[0][:, :14], scanned[1])
    with pytest.raises(ManifestError, match="images of 14 x 28 and labels up to 9; expected 28 x 28"):
        spuco_mnist.read(mnist)
    write(mnist, scanned[0], scanned[1] + 1)
    with pytest.raises(ManifestError, match="images of 28 x 28 and labels up to 10; expected 28 x 28 and 9"):
        spuco_mnist.read(mnist)


def test_swapped_files_are_told_apart(mnist, scanned, tmp_path):
    (mnist / "train-labels-idx1-ubyte").rename(mnist / "kept")
    (mnist / "train-images-idx3-ubyte").rename(mnist / "train-labels-idx1-ubyte")
    (mnist / "kept").rename(mnist / "train-images-idx3-ubyte")
    with pytest.raises(ManifestError, match="train-images-idx3-ubyte begins with .*: it holds labels; were the files"):
        spuco_mnist.read(mnist)
    (mnist / "train-images-idx3-ubyte").write_bytes(idx(scanned[0]))
    with pytest.raises(ManifestError, match="train-labels-idx1-ubyte begins with .*: it holds images; were the files"):
        spuco_mnist.read(mnist)


def test_train_and_test_swapped(mnist, monkeypatch):
    monkeypatch.setattr(_mnist, "MNIST", {"train": TEST, "test": TRAIN})
    with pytest.raises(ManifestError, match="700 images called train and 300 called t10k.* the names are swapped"):
        spuco_mnist.read(mnist)


def test_without_a_root_scans_of_this_machine_are_painted(mnist, tmp_path, monkeypatch):
    workspace = Workspace(tmp_path / "cache")
    monkeypatch.setattr(_mnist, "FASHION", tmp_path / "nowhere")
    digits, remarks = prepare(workspace, "spuco-mnist", None, {"classes": "01234,56789", "size": "300"})
    assert any("the 1,797 scans of scikit-learn" in r for r in remarks) and "digits" in digits.source
    train, val, test = np.bincount(digits.splits)
    assert train + val == test == 300, "at most so many of either half"
    with Image.open(workspace.dataset("spuco-mnist") / "images" / digits.ids[0]) as image:
        assert digits.root is None and image.size == (28, 28)
    assert prepare(workspace, "spuco-mnist", None, {"classes": "01234,56789", "size": "300"})[0].digest == digits.digest
    with pytest.raises(ManifestError, match="nowhere does not exist; install Debian's package dataset-fashion-mnist"):
        prepare(workspace, "clothes=spuco-mnist", None, {"scans": "fashion-mnist"})
    monkeypatch.setattr(_mnist, "FASHION", mnist)
    clothes, remarks = prepare(workspace, "clothes=spuco-mnist", None, {"size": "100"})
    assert any("painted from Fashion-MNIST" in r for r in remarks) and "Fashion-MNIST" in clothes.licence
    assert np.bincount(clothes.splits)[[0, 1]].sum() == np.bincount(clothes.splits)[2] == 100


@pytest.mark.parametrize(
    ("options", "message"),
    [({"scans": "letters"}, "scans=letters: "), ({"images": "x"}, "images goes with --root"),
     ({"val_indices": "x"}, "val_indices goes with --root"), ({"size": "many"}, "size=many: expected a whole number")],
)  # fmt: skip
def test_options_that_make_no_sense_without_a_root(tmp_path, options, message):
    with pytest.raises(ManifestError, match=message):
        prepare(Workspace(tmp_path), "spuco-mnist", None, options)


def test_scans_of_this_machine_do_not_go_with_a_root(mnist):
    with pytest.raises(ManifestError, match="scans goes without --root"):
        spuco_mnist.read(mnist, scans="digits")


def test_a_dataset_of_a_root_is_taken_up_without_it(mnist, tmp_path):
    workspace = Workspace(tmp_path / "cache")
    first, _ = prepare(workspace, "spuco-mnist", mnist, {})
    assert prepare(workspace, "spuco-mnist", None, {})[0].digest == first.digest
