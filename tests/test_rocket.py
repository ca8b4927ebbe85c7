"""ROCKET: features are those of the definition, kernels those of the article, and a name is all that decides them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedx.extractors import rocket


def features_one_by_one(x, kernel):
    """Share of positive values and maximum of one kernel on one vector, place by place as the article defines them."""
    size, values = len(kernel.weights), []
    last = len(x) + kernel.padding - (size - 1) * kernel.dilation
    for start in range(-kernel.padding, last):
        places = [start + j * kernel.dilation for j in range(size)]
        taken = [(w, x[i]) for w, i in zip(kernel.weights, places, strict=True) if 0 <= i < len(x)]
        values.append(kernel.bias + sum(w * v for w, v in taken))
    return np.mean(np.array(values) > 0), max(values)


@settings(max_examples=6)
@given(length=st.integers(11, 50), seed=st.integers(0, 99))
def test_features_are_those_of_the_definition(length, seed):
    drawn = rocket.kernels(6, length, seed)
    x = np.random.default_rng(seed).normal(size=(2, length)).astype(np.float32)
    found = rocket.network(drawn, length)(torch.from_numpy(x)).numpy().reshape(2, 6, 2)
    expected = [[features_one_by_one(row, kernel) for kernel in drawn] for row in x.astype(float)]
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_kernels_are_those_of_the_article():
    drawn = rocket.kernels(2000, 40, 0)
    sizes = np.array([len(k.weights) for k in drawn])
    assert {*sizes} == set(rocket.LENGTHS)
    assert np.allclose([k.weights.mean() for k in drawn], 0)
    assert max(abs(k.bias) for k in drawn) <= 1
    for size in rocket.LENGTHS:
        mine = [k for k in drawn if len(k.weights) == size]
        assert {k.dilation for k in mine} == set(range(1, 39 // (size - 1) + 1))
        assert {k.padding for k in mine} == {0, *((size - 1) * k.dilation // 2 for k in mine)}
        # The dilation is 1 as often as an exponent uniform in 0..log2(39 / (l - 1)) is below 1.
        assert np.mean([k.dilation == 1 for k in mine]) == pytest.approx(1 / np.log2(39 / (size - 1)), abs=0.06)
    assert np.mean([k.padding > 0 for k in drawn]) == pytest.approx(0.5, abs=0.03)
    assert np.mean(sizes == 9) == pytest.approx(1 / 3, abs=0.03)


def test_a_name_is_all_that_decides_the_features():
    one, again, other = (rocket.load(name) for name in ("7", "7-length40-seed0", "7-seed1"))
    assert one.identity == again.identity
    assert one.weights != other.weights
    assert one.dim == 14
    assert one.reader.shape == (40,)
    assert rocket.load("7-length99").reader.shape == (99,)


@pytest.mark.parametrize(("name", "said"), [
    ("", "use rocket:KERNELS"), ("0", "use rocket:KERNELS"), ("9x9", "use rocket:KERNELS"),
    ("9-length10", "up to 11 numbers"),
])  # fmt: skip
def test_another_form_is_refused(name, said):
    with pytest.raises(ValueError, match=said):
        rocket.load(name)


def test_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="leave --weights out"):
        rocket.load("9", tmp_path / "w.safetensors")
