"""The demo's networks: the shipped weights are those of the script, and the demo's own scans were never in it."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from embedx.data.digits import BACKGROUNDS, deck
from embedx.extract import pretrain
from embedx.extractors import tiny
from embedx.extractors._weights import fingerprint


@pytest.mark.parametrize("name", tiny.models())
def test_shipped_weights_say_how_they_were_made(name):
    file = tiny.WEIGHTS / f"{name}.safetensors"
    assert file.stat().st_size < 1.05e6
    with safe_open(file, "pt") as weights:
        recipe = json.loads(weights.metadata()["recipe"])
    facts = asdict(pretrain.RECIPES[name])
    assert {key: recipe[key] for key in facts} == facts


def test_the_untrained_network_is_its_seed():
    network, _ = pretrain.train(pretrain.RECIPES["untrained"])
    shipped = load_file(tiny.WEIGHTS / "untrained.safetensors")
    assert all(torch.equal(value, shipped[key]) for key, value in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["narrow", "broad"])
def test_training_is_seeded(name):
    recipe = replace(pretrain.RECIPES[name], steps=4, textures=4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, again = (fingerprint(pretrain.train(recipe)[0]) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    assert first == again
    assert fingerprint(pretrain.train(replace(recipe, seed=9))[0]) != first


def test_pre_training_sees_no_scan_and_no_background_of_the_demo():
    learn, check = pretrain.pools()
    shown = {card.scan for card in deck()}
    assert not shown & {*learn.tolist(), *check.tolist()}
    assert len(np.unique(np.r_[learn, check])) == len(learn) + len(check)
    assert not set(BACKGROUNDS) & set(pretrain.NOISES)


def test_weights_are_written_whole(tmp_path):
    network, facts = pretrain.train(pretrain.RECIPES["untrained"])
    pretrain.write(network, facts, tmp_path / "out" / "x.safetensors")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["x.safetensors"]
    loaded = tiny.load("untrained", tmp_path / "out" / "x.safetensors")
    assert loaded.weights == tiny.load("untrained").weights
