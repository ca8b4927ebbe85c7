"""Published figures as the papers print them, sizes of backbones, and the rank correlation with these."""

from __future__ import annotations

import pytest
from making import calls, workshop
from test_report import make_run, svg_texts

from embedx import plugins
from embedx.datasets import celeba, waterbirds
from embedx.extractors._aliases import ALIASES
from embedx.report import Comparison, scale
from embedx.report import published as p

ROWS = [row for name in p.DATASETS for row in p.published(name)]


def find(dataset, method, source, kind):
    (row,) = (r for r in p.published(dataset) if (r.method, r.kind) == (method, kind) and source in r.source)
    return row


@pytest.mark.parametrize(
    ("dataset", "method", "source", "kind", "figures"),
    [
        ("waterbirds", "DFR on validation", "Table 2", "last", (0.929, 0.002, 0.942, 0.004, True)),
        ("waterbirds", "GroupDRO", "Table 2", "end", (0.914, None, 0.935, None, True)),
        ("waterbirds", "plain", "Mehta", "frozen", (0.9013, None, None, None, True)),
        ("waterbirds", "ERM, tuned", "Idrissi", "end", (0.855, 0.010, None, None, False)),
        ("celeba", "AFR", "Qiu", "last", (0.820, 0.005, 0.913, 0.003, True)),
        ("celeba", "DFR on train", "Table 2", "last", (0.807, 0.024, 0.906, 0.007, False)),
    ],
)
def test_figures_are_fractions_of_what_the_papers_print(dataset, method, source, kind, figures):
    row = find(dataset, method, source, kind)
    found = (row.worst_group, row.worst_group_spread, row.average, row.average_spread, row.traced)
    assert found == pytest.approx(figures)


def test_every_row_is_whole():
    assert len(ROWS) == len([line for line in p.TABLE.strip().splitlines() if line])
    for row in ROWS:
        assert (row.worst_group, row.average) != (None, None)
        assert 0 < (row.worst_group or row.average) <= (row.average or row.worst_group) < 1
        assert row.kind in p.KINDS
        assert not row.average_raw or row.average is not None
        assert "?" not in row.labels + row.network
    assert {row.source for row in ROWS} == set(p.SOURCES.values())
    assert len({(r.dataset, r.kind, r.method, r.network, r.source) for r in ROWS}) == len(ROWS)
    assert p.published("demo") == ()


def test_the_counts_are_those_of_the_datasets():
    assert {"waterbirds": tuple(waterbirds.COUNTS["test"]), "celeba": celeba.COUNTS["test"]} == p.TEST_GROUPS
    assert p.same_test_set("waterbirds", [642, 2255, 642, 2255])
    assert not p.same_test_set("waterbirds", [642, 2255, 641, 2255])
    assert not p.same_test_set("demo", [1])


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("resnet50", "ImageNet-1k"), ("torchvision:resnet50/IMAGENET1K_V1", "ImageNet-1k"),
        ("timm:resnet50.tv_in1k", "ImageNet-1k"), ("timm:resnet50.fb_swsl_ig1b_ft_in1k", None),
        ("timm:convnext_base.fb_in22k_ft_in1k", "ImageNet-22k"), ("timm:vit_base_patch16_224.mae", "ImageNet-1k"),
        ("swag-vit-h14-e2e", "IG-3.6B"), ("clip-vit-l14", "WIT-400M"), ("clip-vit-h14", "LAION-2B"),
        ("clip:ViT-B-32/laion400m_e32", None), ("siglip-vit-b16", None), ("dinov2-vit-b14", "LVD-142M"),
        ("dinov3-vit-b16", "LVD-1689M"), ("dinov3:vit-l16-sat", None), ("robust-resnet50", "ImageNet-1k"),
        ("efficientnet-lite0", "ImageNet-1k"), ("tiny:broad", None), ("mine", None),
    ],
)  # fmt: skip
def test_what_a_backbone_was_trained_on(backbone, name):
    found = p.pretraining(backbone)
    assert (found.name if found else None) == name


def test_parameters_are_known_by_short_name_and_by_spec():
    for name, alias in ALIASES.items():
        assert p.parameters(name) == p.parameters(alias.spec) == alias.parameters
    assert p.parameters("timm:nothing") is None


def test_the_plot_against_size_holds_what_is_known_and_names_what_is_not():
    names = ["resnet18", "resnet50", "clip-vit-l14", "siglip-vit-b16", "mine"]
    runs = [make_run(name, "plain", key=k, n=[50] * 4, right=[40, 40, 20 + 4 * k, 40]) for k, name in enumerate(names)]
    runs += [make_run("resnet101", "dfr", key=9)]  # without the plain head it has no part in this
    comparison = Comparison.of(runs)
    parameters, images = comparison.scales
    assert (list(parameters.sizes), parameters.unknown) == (names[:4], ("mine",))
    assert (list(images.sizes), images.unknown) == (names[:3], ("siglip-vit-b16", "mine"))
    assert images.sizes["resnet18"] == images.sizes["resnet50"] == 1_281_167
    texts = svg_texts(scale.against_size(comparison))
    assert scale.in_words(parameters.correlation) in texts
    assert {"parameters of the backbone (million, log scale)", *names[:4]} <= set(texts)
    assert not any("mathdefault" in t for t in texts)
    assert "mine" not in texts


@pytest.mark.parametrize("dataset", ["waterbirds", "celeba", "utkface"])
def test_the_make_targets_fetch_extract_and_compare(tmp_path, dataset):
    folder = workshop(tmp_path / "embedx")

    def steps(*variables):
        return [" ".join(c.words[3:]) for c in calls(folder, f"compare-{dataset}", *variables)]

    get, study = steps()
    assert f"data get {dataset}" in get
    assert study == f"study {dataset}"
    assert steps("ROOT=/data") == [f"extract {dataset} --root /data -b resnet50", f"study {dataset}"]
    own = steps("ROOT=/data", "BACKBONES=resnet18")
    assert own == [f"extract {dataset} --root /data -b resnet18", f"compare {dataset} -b resnet18"]


@pytest.mark.parametrize("row", [row for name in p.DATASETS for row in p.published(name)], ids=lambda r: r.method)
def test_a_published_head_on_frozen_features_has_one_of_ours_beside_it(row):
    found = p.counterpart(row)
    if found is None:
        assert row.kind in ("end", "last") or row.network not in p.BACKBONES or row.method not in p.HEADS
    else:
        backbone, head = found
        assert backbone in ALIASES
        assert head in plugins.names(plugins.HEADS)
        assert (head in ("zero-shot",)) == (row.kind == "zero")
