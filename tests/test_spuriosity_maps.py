"""Activation maps: their average is the feature, they lie where they belong, and attacks obey their limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cards import BROAD, cache_of, lens_of, prepare
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from embedx.data.manifest import Manifest
from embedx.errors import BackboneError
from embedx.extract import load_backbone
from embedx.extractors import _timm, _torchvision
from embedx.extractors._backbone import Backbone, Geometry, Vector
from embedx.extractors._weights import freeze
from embedx.spuriosity.features.maps import Box, Mapper, attack, core_crop, enlarge, mapper, nam, onto_image
from embedx.spuriosity.pages import drawing as _drawing
from embedx.workspace import Workspace

MAPS = arrays(np.float32, (2, 3, 4), elements=st.floats(-2, 2, width=32))


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Manifest]:
    return prepare(tmp_path_factory.mktemp("cards"))


def small(module: torch.nn.Module, dim: int, size: tuple[int, int] = (8, 12), feature: str = "average") -> Backbone:
    """A network of ours on small images, whose pixels it sees as they are."""
    return Backbone(
        spec="test:small", dim=dim, reader=Geometry(size, None), module=freeze(module), feature=feature, model="small",
        weights="0", libraries={}, mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip


class Pooled(torch.nn.Module):
    """One convolution, its ReLU, the average."""

    def __init__(self, weight: torch.Tensor, *, last: bool = False) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], bias=False)
        self.conv.weight.data = weight
        self.relu, self.last = torch.nn.ReLU(), last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.conv(x)).mean((2, 3))


def of_torchvision(name: str) -> Backbone:
    from torchvision.models import ResNet18_Weights, get_model

    torch.manual_seed(0)
    facts = _torchvision.TorchvisionFacts(f"torchvision:{name}", _torchvision.FEATURE, "")
    preset = ResNet18_Weights.IMAGENET1K_V1.transforms(crop_size=64, resize_size=64)
    return _torchvision.torchvision_backbone(get_model(name, num_classes=3), preset, name, facts, "")


def of_timm(name: str) -> Backbone:
    from timm.data.config import resolve_model_data_config

    torch.manual_seed(0)
    network = _timm.built(name, num_classes=3)
    config = resolve_model_data_config(network)
    return _timm.as_backbone(
        network, _timm.pre_logits, config, spec=f"timm:{name}", model=name, feature="pooled pre-logits", licence=""
    )


def test_the_average_of_a_map_is_the_cached_feature(cards: tuple[Workspace, Manifest]) -> None:
    lens = lens_of(*cards)
    pixels = np.stack(list(lens.images(range(len(lens.manifest)), lens.geometry)))
    features, maps = lens.mapper.maps(torch.from_numpy(pixels))
    cached = cache_of(cards[0]).features()
    assert maps.shape == (len(cached), 128, 4, 4) and maps.dtype == np.float32 and maps.min() >= 0
    np.testing.assert_allclose(maps.mean((2, 3)), cached, atol=1e-6 * cached.max())
    np.testing.assert_allclose(features, cached, atol=1e-6 * cached.max())


@pytest.mark.parametrize(
    ("backbone", "layer"),
    [
        (lambda: of_torchvision("resnet18"), "layer4"),
        (lambda: of_torchvision("densenet121"), "features"),  # its last ReLU changes what the layer gave, in place
        (lambda: of_timm("resnet10t"), "network.layer4"),
        (lambda: load_backbone("tiny:untrained").placed("cpu"), "blocks"),
    ],
)
def test_the_last_map_is_found_in_networks_of_every_family(backbone, layer: str) -> None:
    found = mapper(backbone())
    assert (found.layer, found.channels) == (layer, 1)
    noise = np.random.default_rng(1).integers(0, 256, (3, *found.backbone.reader.shape), dtype=np.uint8)
    features, maps = found.maps(torch.from_numpy(noise))
    assert maps.shape[2] * maps.shape[3] > 1
    np.testing.assert_allclose(maps.mean((2, 3)), features, atol=1e-5 * np.abs(features).max())


def test_maps_whose_features_lie_last_are_turned() -> None:
    class Last(Pooled):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2))

    weight = torch.randn(5, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    first, last = mapper(small(Pooled(weight), 5)), mapper(small(Last(weight), 5))
    assert (first.channels, last.channels) == (1, 3)
    noise = torch.randint(0, 256, (2, 8, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(first.maps(noise)[1], last.maps(noise)[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_050"])
def test_networks_without_such_a_map_are_refused(name: str) -> None:
    with pytest.raises(BackboneError, match="has no activation maps: .* is the feature .pooled pre-logits.; use a"):
        mapper(of_timm(name))


def test_the_image_tower_of_clip_is_refused() -> None:
    from open_clip.transformer import VisionTransformer

    from embedx.extractors.clip import _pooled

    tower = freeze(VisionTransformer(32, 8, 24, 1, 2, 2.0, output_dim=16))
    with pytest.raises(BackboneError, match="has no activation maps"):
        mapper(small(_pooled(tower), 16, (32, 32)))


def test_vectors_are_refused() -> None:
    flat = Backbone(
        spec="test:flat", dim=3, reader=Vector(3), module=freeze(torch.nn.Identity()), feature="", model="",
        weights="", libraries={},
    )  # fmt: skip
    with pytest.raises(BackboneError, match="test:flat reads vectors, no images"):
        mapper(flat)


@settings(max_examples=40, deadline=None)
@given(MAPS)
def test_a_nam_is_the_map_over_its_own_largest_value_and_never_nan(maps: np.ndarray) -> None:
    found = nam(maps)
    assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1
    for one, of in zip(found, maps, strict=True):
        assert one.max() == (1 if of.max() > 0 else 0)
        np.testing.assert_allclose(one * max(of.max(), 0), np.maximum(of, 0), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(arrays(np.float32, (3, 2), elements=st.floats(0, 1, width=32)), st.integers(2, 9), st.integers(2, 9))
def test_enlarging_is_bilinear_between_the_middles_of_cells(values: np.ndarray, h: int, w: int) -> None:
    found = enlarge(values, (h, w))
    assert found.shape == (h, w)
    for i, j in np.ndindex(h, w):
        y, x = (np.clip((at + 0.5) * n / size - 0.5, 0, n - 1) for at, n, size in ((i, 3, h), (j, 2, w)))
        top, left = min(int(y), 1), min(int(x), 0)
        corner = values[top : top + 2, left : left + 2]
        expected = np.array([1 - (y - top), y - top]) @ corner @ np.array([1 - (x - left), x - left])
        assert found[i, j] == pytest.approx(expected, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(40, 120), st.integers(40, 120), st.sampled_from([None, 48, 64, (50, 70), (48, 48)]),
    st.tuples(st.integers(30, 60), st.integers(30, 60)), st.floats(0.2, 0.8), st.floats(0.2, 0.8),
)  # fmt: skip
def test_a_mask_goes_back_to_where_it_was_cut_from(h, w, resize, size, at_y, at_x) -> None:
    geometry, r = Geometry(size, resize), 6
    image = np.zeros((h, w, 3), np.uint8)
    y, x = int(at_y * h), int(at_x * w)
    image[max(0, y - r) : y + r, max(0, x - r) : x + r] = 255
    seen = geometry(Image.fromarray(image))[..., 0] / np.float32(255)
    whole = geometry(Image.fromarray(np.full((h, w, 3), 255, np.uint8)))[..., 0] / np.float32(255)
    back, visible = onto_image(seen, geometry, (h, w)), onto_image(whole, geometry, (h, w))
    truth = (image[..., 0] > 0) & (visible > 0.5)
    assert back.shape == (h, w) and visible.max() > 0.99
    if truth.sum() < 60:
        return  # all but cut off
    inside = back > 0.5
    assert (inside & truth).sum() / (inside | truth).sum() > 0.75
    rows, cols = np.nonzero(truth)
    middle = np.average(np.indices((h, w)).reshape(2, -1), axis=1, weights=(back * (visible > 0.5)).ravel())
    assert np.abs(middle - [rows.mean(), cols.mean()]).max() < 1.0


def test_what_the_crop_left_out_is_no_part_of_a_mask() -> None:
    mask = onto_image(np.ones((64, 64), np.float32), Geometry((64, 64), 64), (128, 256))
    assert (mask[:, 65:191] == 1).all() and mask[:, :63].max() == 0 and mask[:, 193:].max() == 0


@settings(max_examples=40, deadline=None)
@given(arrays(np.float32, (2, 4, 5), elements=st.floats(0, 1, width=32)), st.integers(20, 50), st.integers(20, 50))
def test_a_core_crop_is_a_square_in_the_image_around_all_that_is_strong(nams: np.ndarray, h: int, w: int) -> None:
    box = core_crop(nams, (h, w))
    assert box.top >= 0 and box.left >= 0 and box.top + box.height <= h and box.left + box.width <= w
    mean = enlarge(nams.mean(axis=0), (h, w))
    if mean.max() <= 0:
        assert box == Box(0, 0, h, w)
        return
    assert box.height == box.width or min(box.height, box.width) == min(h, w)
    strong = mean >= 0.9 * mean.max() + 1e-6
    assert box.cut(strong).sum() == strong.sum()


def test_a_core_crop_grows_by_a_fifth_in_all_and_moves_at_the_border() -> None:
    at = np.zeros((1, 40, 40), np.float32)
    at[0, 10:20, 14:19] = 1  # 10 high, 5 wide: a square of 12 around (15, 16.5)
    assert core_crop(at, (40, 40)) == Box(9, 10, 12, 12)
    assert core_crop(np.roll(at, 20, axis=1), (40, 40)) == Box(28, 10, 12, 12)  # touching the lower border
    two = np.concatenate([at, np.roll(at, (10, 10), axis=(1, 2))])  # the mean never reaches 0.9 by itself
    assert core_crop(two, (40, 40)) == core_crop(two / 2, (40, 40)) != Box(0, 0, 40, 40)
    assert core_crop(0 * two, (40, 30)) == core_crop(two[:0], (40, 30)) == Box(0, 0, 40, 30)


@pytest.fixture
def linear() -> Mapper:
    """Feature 0 is the mean of ReLU(2 R - G), feature 1 never rises from zero."""
    return mapper(small(Pooled(torch.tensor([[2.0, -1.0, 0.0], [-1.0, -1.0, -1.0]])[..., None, None]), 2))


def test_one_step_of_an_attack_goes_along_the_gradient(linear: Mapper) -> None:
    pixels = torch.full((1, 8, 12, 3), 100, dtype=torch.uint8)
    found = attack(linear, pixels, [0], step=0.5, steps=1)
    direction = np.array([2.0, -1.0, 0.0]) / np.sqrt(5 * 96)  # the same at each of the 96 places
    np.testing.assert_allclose(found.pixels[0, 3, 4], np.round(100 + 255 * 0.5 * direction), atol=1)
    assert found.before[0] == pytest.approx(100 / 255, rel=1e-5)
    assert found.after[0] == pytest.approx(100 / 255 + 0.5 * np.sqrt(5 / 96), rel=1e-4)


def test_a_feature_without_gradient_is_left_alone(linear: Mapper) -> None:
    pixels = torch.randint(1, 256, (2, 8, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = attack(linear, pixels, [1, 0], step=1.0, steps=5)
    np.testing.assert_array_equal(found.pixels[0], pixels[0])
    assert found.before[0] == found.after[0] == 0 and np.isfinite(found.after).all()
    assert found.after[1] > found.before[1]


@pytest.mark.parametrize("radius", [0.3, 2.0])
def test_the_radius_binds(cards: tuple[Workspace, Manifest], radius: float) -> None:
    lens = lens_of(*cards)
    pixels = torch.from_numpy(np.stack(list(lens.images([0, 1], lens.geometry))))
    free, held = (attack(lens.mapper, pixels, [3, 5], step=1.0, steps=5, radius=r) for r in (None, radius))
    away = [np.linalg.norm((a.pixels / 255.0 - pixels.numpy() / 255.0).reshape(2, -1), axis=1) for a in (free, held)]
    rounding = np.sqrt(pixels[0].numel()) * 0.3 / 255  # to 256 levels
    assert (away[0] > radius + rounding).all() and (away[1] <= radius + rounding).all()
    assert (held.after < free.after).all() and (held.after > held.before).all()


def test_attacks_of_several_features_at_once_are_those_of_each_alone(cards: tuple[Workspace, Manifest]) -> None:
    lens = lens_of(*cards)
    pixels = torch.from_numpy(np.stack(list(lens.images([0, 1, 2], lens.geometry))))
    together = attack(lens.mapper, pixels, [3, 5, 7], step=1.0, steps=3)
    for i, feature in enumerate([3, 5, 7]):
        alone = attack(lens.mapper, pixels[i : i + 1], [feature], step=1.0, steps=3)
        np.testing.assert_allclose(alone.after, together.after[i : i + 1], rtol=1e-4)
    features = lens.mapper.maps(pixels)[0]
    np.testing.assert_allclose(together.before, features[[0, 1, 2], [3, 5, 7]], rtol=1e-4, atol=1e-6)


def test_an_overlay_shows_the_map_and_leaves_the_rest() -> None:
    image = np.random.default_rng(0).integers(60, 200, (40, 60, 3)).astype(np.uint8)
    np.testing.assert_array_equal(_drawing.overlay(image, np.zeros((3, 4))), image)
    spot = np.zeros((4, 6), np.float32)
    spot[1, 4] = 1
    found = _drawing.overlay(image, spot)
    heat, on_black = enlarge(spot, (40, 60)), _drawing.overlay(np.zeros_like(image), spot).mean(axis=2)
    assert on_black[heat >= 0.75].min() > 5 * on_black[heat == 0].max()
    white = (found == 255).all(axis=2)
    assert white.any() and (heat[white] < 0.5).all()  # the line runs just outside
    assert heat[white].min() > 0.25


def test_the_colours_keep_their_order_in_grey_print() -> None:
    luminance = _drawing._colours() @ [0.299, 0.587, 0.114]
    assert (np.diff(luminance) > -0.5).all() and luminance[-1] - luminance[0] > 150


def test_pictures_keep_their_proportions() -> None:
    assert _drawing.picture(np.zeros((40, 60, 3), np.uint8), 90).shape == (60, 90, 3)
    assert _drawing.picture(np.zeros((60, 40, 3), np.uint8), 30).shape == (30, 20, 3)


def test_this_is_the_backbone_of_the_cache(cards: tuple[Workspace, Manifest]) -> None:
    assert lens_of(*cards).mapper.backbone.spec == BROAD and Path(cache_of(cards[0]).path).exists()
