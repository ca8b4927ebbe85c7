"""The demo's networks: the shipped weights are those of the script, and the demo's own scans were never in it."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from embedx.data.digits import BACKGROUNDS, deck
from embedx.errors import BackboneError
from embedx.extract import parity, pretrain
from embedx.extract.backbones import load_backbone
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
    with pretrain.one_thread():
        before = torch.get_rng_state()
        first, again = (fingerprint(pretrain.train(recipe)[0]) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), before)
    assert first == again
    assert fingerprint(pretrain.train(replace(recipe, seed=9))[0]) != first


def test_pre_training_sees_no_scan_and_no_background_of_the_demo():
    learn, check = pretrain.pools()
    shown = {card.scan for card in deck()}
    assert not shown & {*learn.tolist(), *check.tolist()}
    assert len(np.unique(np.r_[learn, check])) == len(learn) + len(check)
    assert not set(BACKGROUNDS) & set(pretrain.NOISES)


def test_weights_are_written_whole(tmp_path):
    network, _ = pretrain.train(pretrain.RECIPES["untrained"])
    pretrain.write(network, {"name": "untrained"}, tmp_path / "out" / "x.safetensors")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["x.safetensors"]
    loaded = tiny.load("untrained", tmp_path / "out" / "x.safetensors")
    assert loaded.weights == tiny.load("untrained").weights


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder of weights, empty; and training cut short."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setattr(pretrain, "STEPS", 2)
    return tmp_path / "hub" / "checkpoints"


def test_a_graded_network_is_trained_once_and_kept(hub):
    told = []
    first = load_backbone("tiny:w16-n8-d2", notice=told.append)
    again = load_backbone("tiny:w16-n8-d2", notice=told.append)
    assert (first.dim, first.weights) == (16, again.weights)
    assert told == [f"note: w16-n8-d2 is trained now, which is done once; its weights are kept in {hub}"]
    (file,) = hub.glob("*.safetensors")
    assert file.name.startswith("embedx-tiny-w16-n8-d2-")
    with safe_open(file, "pt") as weights:
        recipe = json.loads(weights.metadata()["recipe"])
    assert (recipe["width"], recipe["pictures"], recipe["textures"]) == (16, 8, 2)


def test_every_part_of_a_grade_makes_another_network(hub):
    names = ("w16-n8-d2", "w24-n8-d2", "w16-n9-d2", "w16-n8-d3", "w16-n8-d2-s1", "w16-n0-d0")
    assert len({load_backbone(f"tiny:{name}").weights for name in names}) == len(names)
    parity_found = parity.compare("tiny:w24-n8-d2", dict(list(parity.bundled().items())[:1]))
    assert parity_found.faults() == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("w20-n8-d2", "a width of 20; expected a multiple of 8 from 8 to 512"),
        ("w1024-n8-d2", "a width of 1024; expected a multiple of 8 from 8 to 512"),
        ("w16-n8-d65", "8 pictures over 65 kinds of texture; expected 1 to 64"),
        ("w16-n8-d0", "8 pictures over 0 kinds of texture; expected 1 to 64"),
        ("w16-n0-d2", "or an untrained network: n0-d0"),
        ("w16-n08-d2", "has no model 'w16-n08-d2'; it has untrained, narrow, broad, and grades like w32-n2000-d16"),
        ("w16-n8-d2-s0", "has no model 'w16-n8-d2-s0'"),
    ],
)
def test_grades_that_are_none_are_refused(hub, name, message):
    with pytest.raises(BackboneError, match=message):
        load_backbone(f"tiny:{name}")
    assert not hub.exists()


def test_a_grade_by_itself_has_no_weights():
    with pytest.raises(ValueError, match="tiny:w16-n8-d2 has no weights"):
        tiny.load("w16-n8-d2")
