"""Extraction: the same bytes whatever the shards, workers and interruptions; failed rows stay honest."""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import Compose, Normalize, ToTensor

from embedx.data import manifest as manifests
from embedx.data.images import decode
from embedx.data.sources import Folder
from embedx.data.status import Status
from embedx.errors import BackboneError, CacheError, ExtractionError, ProvenanceError, UnknownName
from embedx.extract import Settings, engine, extract, load_backbone, merge, rows
from embedx.extractors._backbone import Backbone, Geometry
from embedx.extractors._weights import freeze
from embedx.store import FeatureCache
from embedx.workspace import Workspace

N = 23


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("tiny:broad")


@pytest.fixture
def data(tmp_path):
    """(manifest, root): 23 small photographs of noise of various sizes."""
    root = tmp_path / "images"
    root.mkdir()
    rng = np.random.default_rng(0)
    ids = [f"{i:02d}.png" for i in range(N)]
    for i, name in enumerate(ids):
        Image.fromarray(rng.integers(0, 256, (40 + i, 90 - i, 3), dtype=np.uint8)).save(root / name)
    columns = {"id": ids, "label": ["a", "b"] * 11 + ["a"], "split": (["train", "val", "test"] * 8)[:N]}
    return manifests.build("noise", columns), root


def run(data, tmp_path, backbones, progress=lambda done, total: None, **settings):
    manifest, root = data
    workspace, how = Workspace(tmp_path / "cache"), Settings(**{"batch": 8, **settings})
    return extract(manifest, Folder(root), backbones, workspace, how, progress)[0]


def stop_at(rows):
    """A progress function that interrupts once so many rows are done."""

    def progress(done, total):
        if done >= rows:
            raise KeyboardInterrupt

    return progress


def features(tmp_path, name="tiny:broad"):
    return FeatureCache.open_complete(Workspace(tmp_path / "cache").cache("noise", name)).features()


def forget(tmp_path):
    shutil.rmtree(tmp_path / "cache")


def test_features_are_those_of_the_network_called_directly(data, tmp_path, tiny):
    manifest, root = data
    run(data, tmp_path, {"tiny:broad": tiny})
    pixels = [Image.open(root / i).convert("RGB").resize((64, 64), Image.Resampling.BILINEAR) for i in manifest.ids]
    x = torch.from_numpy(np.stack([np.asarray(p) for p in pixels])).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        direct = tiny.module((x - 0.5) / 0.25).numpy()
    np.testing.assert_allclose(features(tmp_path), direct, rtol=1e-5, atol=1e-5)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.floats(0.01, 1), min_size=6, max_size=6))
def test_normalisation_has_the_bits_of_torchvision(numbers):
    """Looking 256 values up is ToTensor and Normalize, to the last bit."""
    mean, std = tuple(numbers[:3]), tuple(numbers[3:])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    theirs = Compose([ToTensor(), Normalize(mean, std)])
    backbone = replace(toy(lambda x: x.flatten(1), dim=60), mean=mean, std=std)
    ours = backbone.encode(torch.from_numpy(pixels), "cpu")
    assert ours.tobytes() == torch.stack([theirs(p).flatten() for p in pixels]).numpy().tobytes()


def test_same_bytes_for_any_shards_and_workers(data, tmp_path, tiny):
    run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=1000)
    expected = features(tmp_path).tobytes()
    for shard_rows, workers in [(1, 0), (3, 0), (7, 1), (8, 2), (10, 2), (23, 1)]:
        forget(tmp_path)
        run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=shard_rows, workers=workers)
        assert features(tmp_path).tobytes() == expected, (shard_rows, workers)


def test_one_decode_for_many_backbones_and_equal_to_separate_runs(data, tmp_path, tiny, monkeypatch):
    several = {"tiny:broad": tiny, "raw:8x8": load_backbone("raw:8x8"), "tiny:narrow": load_backbone("tiny:narrow")}
    alone = {}
    for name, backbone in several.items():
        run(data, tmp_path, {name: backbone}, shard_rows=5)
        alone[name] = features(tmp_path, name).tobytes()
        forget(tmp_path)
    seen = []
    monkeypatch.setattr(rows, "decode", lambda source, row, kind: seen.append(row) or decode(source, row, kind))
    run(data, tmp_path, several, shard_rows=5)
    assert sorted(seen) == sorted(data[0].ids)
    assert {name: features(tmp_path, name).tobytes() for name in several} == alone


def test_a_second_run_computes_nothing(data, tmp_path, tiny, monkeypatch):
    assert [r.computed for r in run(data, tmp_path, {"tiny:broad": tiny})] == [N]
    monkeypatch.setattr(engine, "compute", None)
    assert [r.computed for r in run(data, tmp_path, {"tiny:broad": tiny})] == [0]


def test_an_interrupted_run_goes_on_where_it_was(data, tmp_path, tiny, monkeypatch):
    run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=4)
    expected = features(tmp_path).tobytes()
    forget(tmp_path)

    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=4, progress=stop_at(12))
    shards = Workspace(tmp_path / "cache").shards("noise", "tiny:broad")
    assert len(list(shards.glob("*.h5"))) == 3
    (result,) = run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=4)
    assert result.computed == N - 12
    assert features(tmp_path).tobytes() == expected
    assert not shards.exists()


def test_a_damaged_shard_is_computed_again_and_another_batch_size_refused(data, tmp_path, tiny):
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=8, progress=stop_at(16))
    shards = sorted(Workspace(tmp_path / "cache").shards("noise", "tiny:broad").glob("*.h5"))
    assert len(shards) == 2
    with pytest.raises(ProvenanceError, match="batch is 8, expected 4"):
        run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=8, batch=4)
    with h5py.File(shards[0], "r") as file:
        offset = file["features"].id.get_offset()
    with shards[0].open("rb+") as f:
        f.seek(offset)
        f.write(b"\x01\x02\x03")
    (result,) = run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=8)
    assert result.computed == N - 8


def test_failed_rows_keep_their_place_and_reason(data, tmp_path, tiny):
    _, root = data
    run(data, tmp_path, {"tiny:broad": tiny})
    good = features(tmp_path)
    forget(tmp_path)
    (root / "03.png").unlink()
    (root / "05.png").write_bytes((root / "05.png").read_bytes()[:600])
    (root / "08.png").write_bytes(b"")
    (root / "11.png").write_text("no image")
    (result,) = run(data, tmp_path, {"tiny:broad": tiny}, max_bad=0.5)
    cache = FeatureCache.open_complete(result.path)
    assert dict(result.bad).keys() == {"03.png", "05.png", "08.png", "11.png"}
    assert dict(result.bad)["03.png"] == "no such file"
    assert dict(result.bad)["08.png"] == "empty file"
    assert "not an image" in dict(result.bad)["11.png"]
    assert cache.status[[3, 5, 8, 11]].tolist() == [Status.MISSING] + [Status.UNREADABLE] * 3
    assert not cache.features()[[3, 5, 8, 11]].any()
    kept = np.setdiff1d(np.arange(N), [3, 5, 8, 11])
    assert cache.features()[kept].tobytes() == good[kept].tobytes()


def test_too_many_failed_rows_is_an_error_that_loses_nothing(data, tmp_path, tiny):
    _, root = data
    saved = (root / "09.png").read_bytes()
    (root / "09.png").unlink()
    (root / "20.png").write_bytes(b"")
    message = r"2 of 23 rows failed, more than --max-bad 0.05 allows \(09.png: no such file; 20.png: empty file\)"
    with pytest.raises(ExtractionError, match=message):
        run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=4, max_bad=0.05)
    (result,) = run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=4, max_bad=0.1)
    assert result.computed == 0  # allowing more needs no pixel again
    forget(tmp_path)
    with pytest.raises(ExtractionError):
        run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=4, max_bad=0)
    (root / "09.png").write_bytes(saved)
    (result,) = run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=4, max_bad=0.05)
    assert result.computed == 1  # only the mended file
    assert [i for i, _ in result.bad] == ["20.png"]


def test_a_wrong_root_is_found_before_any_work(data, tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(engine, "compute", None)
    with pytest.raises(ExtractionError, match=r"none of 23 files looked for exists.*--root"):
        run((data[0], tmp_path), tmp_path, {"tiny:broad": tiny})


def network(function):
    class Network(torch.nn.Module):
        def forward(self, x):
            return function(x)

    return freeze(Network())


def toy(function, dim=3, **changes):
    reader = Geometry(size=(4, 4), resize=(4, 4))
    facts = {"spec": "toy:x", "model": "x", "weights": "0", "feature": "mean", "libraries": {}, "mean": (0.0,) * 3}
    return Backbone(dim=dim, reader=reader, module=network(function), std=(1.0,) * 3, **{**facts, **changes})


def test_features_that_are_not_finite_are_marked(data, tmp_path):
    def half_broken(x):
        out = x.mean(dim=(2, 3))
        out[3] = torch.inf
        out[5, 1] = torch.nan
        return out

    (result,) = run(data, tmp_path, {"toy": toy(half_broken)}, max_bad=1)
    cache = FeatureCache.open_complete(result.path)
    broken = [3, 5, 11, 13, 19, 21]  # places 3 and 5 of every batch of 8
    assert np.flatnonzero(cache.status == Status.NOT_FINITE).tolist() == broken
    assert not cache.features()[broken].any()
    assert cache.reasons[5] == "a feature is not finite"


def test_a_feature_too_large_for_half_precision_marks_its_row(data, tmp_path):
    def large(x):
        out = x.mean(dim=(2, 3))
        out[2, 1] = 70_000
        return out

    (result,) = run(data, tmp_path, {"toy": replace(toy(large), precision="float16")}, max_bad=1)
    cache = FeatureCache.open_complete(result.path)
    assert cache.features().dtype == np.float16
    assert dict(result.bad).keys() == {"02.png", "10.png", "18.png"}
    assert cache.reasons[2] == "a feature is not finite in float16; try --precision float32"
    assert not cache.features()[2].any()


def test_a_cache_from_other_weights_is_refused_and_a_row_without_a_file_fails(data, tmp_path, tiny):
    manifest, root = data
    run(data, tmp_path, {"mine": tiny})
    with pytest.raises(ProvenanceError, match=r"weights is \w+…?.*, expected .*Delete it.*-b NAME=tiny:narrow"):
        run(data, tmp_path, {"mine": load_backbone("tiny:narrow")})
    columns = {"id": [*manifest.ids[:-1], "new.png"], "label": manifest.labels, "split": ["train"] * N}
    with pytest.raises(ExtractionError, match=r"1 of 23 rows failed.*new.png: no such file"):
        run((manifests.build("noise", columns), root), tmp_path, {"mine": tiny})


def test_other_files_under_the_same_ids_are_no_hit(data, tmp_path, tiny):
    _, root = data
    run(data, tmp_path, {"tiny:broad": tiny})
    before = features(tmp_path)
    (root / "00.png").write_bytes((root / "01.png").read_bytes())
    (root / "02.png").write_bytes((root / "03.png").read_bytes()[:-20] + b"x" * 20)
    assert [r.computed for r in run(data, tmp_path, {"tiny:broad": tiny}, max_bad=1)] == [1], "01 is known by its bytes"
    now = features(tmp_path)
    assert now[0].tobytes() == before[1].tobytes() and now[3:].tobytes() == before[3:].tobytes()
    assert not now[2].any() or now[2].tobytes() != before[2].tobytes()
    shutil.rmtree(root)  # images that are gone say nothing: caches outlive them
    assert [r.computed for r in run(data, tmp_path, {"tiny:broad": tiny})] == [0]


def test_a_file_that_may_not_be_read_fails_its_row_and_stops_no_later_run(data, tmp_path, tiny, monkeypatch):
    read = Path.read_bytes

    def denied(path):
        if path.name == "05.png":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", denied)
    (first,) = run(data, tmp_path, {"tiny:broad": tiny}, max_bad=0.1)
    assert first.bad == (("05.png", "Permission denied"),)
    (again,) = run(data, tmp_path, {"tiny:broad": tiny}, max_bad=0.1)
    assert (again.computed, again.bad) == (0, first.bad)


def test_rows_dropped_from_the_manifest_need_no_extraction(data, tmp_path, tiny):
    manifest, root = data
    run(data, tmp_path, {"tiny:broad": tiny})
    columns = {"id": manifest.ids[:-1].tolist(), "label": ["a", "b"] * 11, "split": ["train", "test"] * 11}
    assert [r.computed for r in run((manifests.build("noise", columns), root), tmp_path, {"tiny:broad": tiny})] == [0]


def test_another_run_that_merged_first_is_no_error(data, tmp_path, tiny, monkeypatch):
    """Two runs at once do the same work; the slower one finds its shards gone and the cache there."""
    run(data, tmp_path, {"tiny:broad": tiny})
    place = Workspace(tmp_path / "cache").cache("noise", "tiny:broad")
    done = place.read_bytes()
    place.unlink()

    def merged_by_another(*args):
        place.write_bytes(done)
        raise CacheError("a shard does not exist")

    monkeypatch.setattr(merge, "_merge", merged_by_another)
    assert run(data, tmp_path, {"tiny:broad": tiny})[0].path == place
    assert not Workspace(tmp_path / "cache").shards("noise", "tiny:broad").exists()


def test_two_backbones_with_one_file_name(data, tmp_path, tiny):
    with pytest.raises(ExtractionError, match="would write the same file; give one another name"):
        run(data, tmp_path, {"a:b": tiny, "a-b": tiny})


def test_head_and_projection_are_stored(data, tmp_path):
    head = (np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, dtype=np.float32))
    backbone = toy(lambda x: x.mean(dim=(2, 3)), head=head, projection=np.eye(3, dtype=np.float32))
    (result,) = run(data, tmp_path, {"toy": backbone})
    extras = FeatureCache.open_complete(result.path).extras
    assert extras["head/weight"].tolist() == head[0].tolist()
    assert extras["head/bias"].tolist() == head[1].tolist()
    assert extras["projection"].tolist() == np.eye(3).tolist()


def test_a_network_that_is_not_frozen_or_returns_another_shape(data, tmp_path):
    with pytest.raises(ValueError, match="not frozen"):
        replace(toy(lambda x: x), module=torch.nn.Dropout())
    with pytest.raises(ValueError, match=r"shape \(8, 2\), expected \(8, 3\)"):
        run(data, tmp_path, {"toy": toy(lambda x: x.mean(dim=(2, 3))[:, :2])})


def test_out_of_memory_says_what_to_do(data, tmp_path):
    def full(x):
        raise torch.OutOfMemoryError("tried to allocate")

    with pytest.raises(ExtractionError, match="toy:x: cpu has too little memory for a single image; use another"):
        run(data, tmp_path, {"toy": toy(full)})


def test_out_of_memory_halves_the_batch_and_goes_on(data, tmp_path):
    """As many images as fit; the features are the same, the cache says what batches it was made with."""
    sizes = []

    def small(x):
        if len(x) > 3:
            raise torch.OutOfMemoryError("tried to allocate")
        sizes.append(len(x))
        return x.mean(dim=(2, 3))

    run(data, tmp_path, {"toy": toy(lambda x: x.mean(dim=(2, 3)))})
    expected = features(tmp_path, "toy").tobytes()
    forget(tmp_path)
    (result,) = run(data, tmp_path, {"toy": toy(small)}, shard_rows=8)
    assert set(sizes) == {2}, "8, 4, 2"
    cache = FeatureCache.open_complete(result.path)
    assert cache.features().tobytes() == expected
    assert cache.header.provenance["conditions"]["batch"] == 2
    result.path.unlink()
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path, {"toy": toy(small)}, progress=stop_at(16), shard_rows=8)
    (result,) = run(data, tmp_path, {"toy": toy(lambda x: x.mean(dim=(2, 3)))}, shard_rows=8)
    assert result.computed == N - 16, "shards made with half a batch are kept"
    assert FeatureCache.open_complete(result.path).header.provenance["conditions"]["batch"] == [8, 2]


def test_an_unnamed_batch_is_the_one_of_the_run_before(data, tmp_path, tiny):
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path, {"tiny:broad": tiny}, progress=stop_at(16), shard_rows=8, batch=4)
    (result,) = run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=8, batch=None)
    assert result.computed == N - 16
    assert FeatureCache.open_complete(result.path).header.provenance["conditions"]["batch"] == 4


def test_parts_and_a_merge_make_the_same_cache(data, tmp_path, tiny):
    """What a Slurm array does: every part in a process of its own, in any order, then one merge."""
    run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=5)
    expected = features(tmp_path).tobytes()
    forget(tmp_path)
    computed = []
    for i in (2, 0):
        (result,) = run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=5, part=(i, 3))
        computed.append(result.computed)
        assert result.path.name == "tiny-broad.shards"
    with pytest.raises(
        ExtractionError, match=r"2 shards are missing \(tiny-broad.shards/0000000005-0000000010.h5, .*then merge"
    ):
        run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=5, merge_only=True)
    run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=5, part=(1, 3))
    (result,) = run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=5, merge_only=True)
    assert computed == [8, 5]
    assert result.computed == 0
    assert features(tmp_path).tobytes() == expected


@pytest.mark.slow
def test_several_processes_make_the_same_cache(data, tmp_path, tiny):
    run(data, tmp_path, {"tiny:broad": tiny}, shard_rows=4)
    expected = features(tmp_path).tobytes()
    forget(tmp_path)
    seen = []
    (result,) = run(
        data, tmp_path, {"tiny:broad": tiny}, lambda done, total: seen.append(done), shard_rows=4,
        devices=("cpu", "cpu"), workers=1,
    )  # fmt: skip
    assert result.computed == N == seen[-1]
    assert features(tmp_path).tobytes() == expected


@pytest.mark.slow
def test_a_process_that_cannot_load_the_backbone_is_an_error_and_loses_nothing(data, tmp_path, tiny):
    """A changed network under a known name: other processes load by name, and see that it is another one."""
    other = replace(tiny, weights="0" * 64)
    with pytest.raises(ExtractionError, match=r"cpu: mine: another weights on this machine .*kept"):
        run(data, tmp_path, {"mine": other}, shard_rows=4, devices=("cpu", "cpu"))


def test_fast_decoding_is_close_recorded_and_never_mixed(data, tmp_path, tiny):
    run(data, tmp_path, {"tiny:broad": tiny})
    exact = features(tmp_path)
    fast = tiny.placed("cpu", decode="fast")
    with pytest.raises(ProvenanceError, match="decode is exact, expected fast"):
        run(data, tmp_path, {"tiny:broad": fast})
    run(data, tmp_path, {"fast": fast})
    found = features(tmp_path, "fast")
    cosine = (exact * found).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(found, axis=1)
    assert cosine.min() > 0.999
    assert found.tobytes() != exact.tobytes()


def test_an_elongated_image_is_a_failed_row_and_takes_no_memory(data, tmp_path):
    _, root = data
    Image.new("RGB", (20_000, 1)).save(root / "04.png")
    backbone = replace(toy(lambda x: x.mean(dim=(2, 3))), reader=Geometry(size=(224, 224), resize=256))
    (result,) = run(data, tmp_path, {"toy": backbone}, max_bad=0.1)
    assert result.bad == (("04.png", "20000 x 1 pixels, too elongated to resize its shorter edge"),)


def test_vectors_pass_through_unchanged(tmp_path):
    root = tmp_path / "vectors"
    root.mkdir()
    values = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    for i, v in enumerate(values):
        np.save(root / f"{i}.npy", v if i != 4 else v[:3])
    columns = {"id": [f"{i}.npy" for i in range(6)], "label": ["a", "b"] * 3, "split": ["train", "val", "test"] * 2}
    manifest = manifests.build("noise", columns)
    run((manifest, root), tmp_path, {"v": load_backbone("raw:vector-5")}, max_bad=0.2)
    cache = FeatureCache.open_complete(Workspace(tmp_path / "cache").cache("noise", "v"))
    assert cache.features()[[0, 1, 2, 3, 5]].tobytes() == values[[0, 1, 2, 3, 5]].tobytes()
    assert cache.reasons == {4: "holds an array of shape (3,), expected (5,)"}


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("tinny:broad", UnknownName, "did you mean 'tiny'"),
        ("tiny:brod", BackboneError, "no model 'brod'; it has untrained, narrow, broad"),
        ("tiny", BackboneError, "names a family of backbones, not a model; for example tiny:untrained"),
        ("raw:banana", BackboneError, "use raw:HEIGHTxWIDTH"),
        ("py:no_such_module:x", UnknownName, "no Python module 'no_such_module'"),
        ("py:json:x", BackboneError, "py:json is no backbone family: it has no functions load"),
    ],
)
def test_unknown_backbones(spec, error, message):
    with pytest.raises(error, match=message):
        load_backbone(spec)


def test_weights_that_are_absent_foreign_hostile_or_do_not_fit(tmp_path):
    import pickle

    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"a": torch.ones(2)}, tmp_path / "other.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
    (tmp_path / "hostile.pt").write_bytes(pickle.dumps(Hostile()))
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({1: torch.ones(2)}, tmp_path / "numbers.pt")
    for name, message in {
        "absent.pt": "no weights file .*absent.pt; give --weights",
        "other.pt": r"other.pt as tiny:broad does not fit: \d+ missing .*1 unexpected \(a\); choose the model",
        "broken.safetensors": "no readable safetensors file",
        "hostile.pt": "cannot be loaded as plain tensors .*save its state dict as safetensors",
        "list.pt": "holds no state dict",
        "numbers.pt": "holds no state dict",
    }.items():
        with pytest.raises(BackboneError, match=message):
            load_backbone("tiny:broad", tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_plug_in_outside_the_tree(data, tmp_path, monkeypatch):
    (tmp_path / "my_backbones.py").write_text(
        "from dataclasses import replace\nfrom embedx.extractors import raw\n"
        "def models():\n    return ('double',)\n"
        "def load(model, weights=None):\n    return replace(raw.load('2x2'), model=model)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    backbone = load_backbone("py:my_backbones:double")
    assert backbone.spec == "py:my_backbones:double"
    run(data, tmp_path, {"mine": backbone})
    assert features(tmp_path, "mine").shape == (N, 12)


def test_no_cache_at_all(tmp_path):
    with pytest.raises(CacheError, match="does not exist"):
        FeatureCache.open_complete(tmp_path / "x.h5")
