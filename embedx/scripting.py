"""What a script or a notebook calls: the steps of the command line as functions, each with a workspace by default.

    manifest = embedx.prepare("birds=csv", "birds.csv", {"path": "file", "label": "species"})
    embedx.extract_features(manifest, ["clip-vit-b16"])
    runs = embedx.compare(manifest)

A workspace is the cache folder: a `Workspace` or a path; by default what $EMBEDX_CACHE names, else `cache` in the
folder where the program runs, as for the command line.

Remarks are what the command line prints as notes: values that look alike, images in two splits, heads left out. They
go to `notice`, by default as warnings of the logger `embedx`. Python shows these as plain lines on standard error, in
a notebook below the cell; `logging` redirects or silences them. They are about the data and not about the calling
code, so they are none of Python's `warnings`, which repeat no line and may be errors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from embedx.data.manifest import Manifest
from embedx.data.prepare import open_prepared
from embedx.data.prepare import prepare as prepare_in
from embedx.evaluation.compare import compare as compare_in
from embedx.evaluation.model import Model, ModelName
from embedx.evaluation.plan import ComparisonSettings
from embedx.evaluation.probe import fit as fit_in
from embedx.evaluation.runs import Run, Runs, cautions
from embedx.evaluation.saved import load_model as load_from
from embedx.evaluation.saved import save_model as save_into
from embedx.extract.merge import Extraction
from embedx.extract.outdated import outdated_caches
from embedx.extract.request import ExtractionSettings
from embedx.extract.request import extract_features as extract_features_in
from embedx.repair import GroupRepairSettings, Repaired, RepairedGroups, RepairSettings, publish_groups
from embedx.repair import publish as publish_repair
from embedx.repair import repair_groups as repair_groups_in
from embedx.repair import repair_head as repair_in
from embedx.report import publish
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.records.ranking import rankings_for
from embedx.store import FeatureCache
from embedx.store import open_cache as open_cache_in
from embedx.studies.engine.conduct import conduct, folder_of
from embedx.studies.engine.file import read
from embedx.studies.engine.run import RunSettings
from embedx.studies.outcome import Answer
from embedx.workspace import Workspace

Place = Workspace | Path | str | None
Notice = Callable[[str], None]


def log(remark: str) -> None:
    """A remark as a warning of the logger `embedx`."""
    logging.getLogger("embedx").warning(remark)


def workspace_at(place: Place) -> Workspace:
    """The workspace itself, that of a folder, or the default one."""
    if isinstance(place, Workspace):
        return place
    return Workspace() if place is None else Workspace(Path(place))


def prepare(
    dataset: str,
    root: str | Path | None = None,
    options: Mapping[str, str] | None = None,
    *,
    workspace: Place = None,
    notice: Notice = log,
) -> Manifest:
    """The manifest of a dataset, read from its files and kept in the workspace.

    dataset  NAME prepared before, SOURCE (a dataset plug-in, as `embedx list datasets` shows them), or NAME=SOURCE
    root     where the files lie, for a SOURCE that does not make them itself
    options  of the SOURCE, in words: `{"label": "species", "attributes": "place,sex"}`

    Raises `UnknownName` or `ManifestError`.
    """
    manifest, remarks = prepare_in(workspace_at(workspace), dataset, root, options or {})
    _tell(remarks, notice)
    return manifest


def open_dataset(name: str, *, workspace: Place = None, notice: Notice = log) -> Manifest:
    """The manifest of a dataset that was prepared before. Raises `UnknownName` or `ManifestError`."""
    manifest, remarks = open_prepared(workspace_at(workspace), name)
    _tell(remarks, notice)
    return manifest


def extract_features(
    manifest: Manifest,
    backbones: str | Sequence[str],
    settings: ExtractionSettings | None = None,
    *,
    workspace: Place = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    notice: Notice = log,
) -> list[Extraction]:
    """Bring the feature cache of each backbone up to date; every image is decoded once for all of them.

    backbones  FAMILY:MODEL or a short name, as `embedx list backbones` shows them; NAME= before it names the cache
    progress   called with rows done and rows to do

    Rows that have features already are not computed again, unless their file has changed. Raises `UnknownName`,
    `BackboneError`, `ProvenanceError` for a cache that was made differently, `ExtractionError` when too many rows fail.
    """
    settings = settings or ExtractionSettings()
    place, names = workspace_at(workspace), _several(backbones)
    return extract_features_in(manifest, names, place, settings, progress=progress, notice=notice)


def open_cache(manifest: Manifest, backbone: str, *, workspace: Place = None, notice: Notice = log) -> FeatureCache:
    """The features of one backbone, with a remark where images have changed since. Raises `CacheError`."""
    place = workspace_at(workspace)
    cache = open_cache_in(place, manifest, backbone)
    _tell(outdated_caches(place, manifest, [backbone]), notice)
    return cache


def compare(
    manifest: Manifest,
    backbones: str | Sequence[str] = (),
    heads: str | Sequence[str] = (),
    settings: ComparisonSettings | None = None,
    *,
    workspace: Place = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    notice: Notice = log,
) -> Runs:
    """Every head on every backbone: the best setting chosen on validation and reported on test, one record each.

    backbones  with a feature cache; by default all of them
    heads      as `embedx list heads` shows them; by default the standard ones that the data can feed
    progress   called with heads done, heads to do, and the one under way

    Raises what can be refused before the first fit: `UnknownName`, `CacheError`, `SplitError`, `HeadError`.
    """
    place, settings = workspace_at(workspace), settings or ComparisonSettings()
    backbones, heads = _several(backbones), _several(heads)
    _tell(outdated_caches(place, manifest, backbones or place.backbones(manifest.name)), notice)
    if not settings.rankings:
        settings = replace(settings, rankings=rankings_for(place, manifest, backbones, heads, settings.rule))
    if settings.folder is not None:
        settings = replace(settings, folder=Path(settings.folder))
    runs = compare_in(place, manifest, backbones, heads, settings, progress=progress, notice=notice)
    _tell(cautions(runs), notice)
    return runs


def write_report(runs: Sequence[Run], folder: str | Path, *, notice: Notice = log) -> Path:
    """Write the records, tables, plots and the page of a comparison into a folder; returns the page.

    They take the place of the comparison that the folder held; what that loses is told. Raises `ValueError` without
    runs and for runs of several datasets, `ResultsError` for a folder of single runs.
    """
    return publish(runs, Path(folder), notice=notice)


def fit(
    manifest: Manifest,
    cache: FeatureCache,
    head: str,
    *,
    prompts: Mapping[str, Sequence[str]] | None = None,
    notice: Notice = log,
) -> Model:
    """The model of a head by name, fitted and chosen as `embedx probe` does it for the first seed.

    prompts  {class: texts}, for the heads that need them

    Raises `UnknownName`, `HeadError` or `SplitError`.
    """
    return fit_in(manifest, cache, head, prompts=prompts, notice=notice)


def load_model(file: str | Path, *, notice: Notice = log) -> Model:
    """A model that `save_model` or `embedx probe -o` saved. Raises `HeadError` for what is missing or damaged."""
    return load_from(Path(file), notice)


def save_model(model: Model, folder: str | Path) -> Path:
    """Write a linear model with its record as one file, whole or not at all; returns it. Raises `HeadError`."""
    return save_into(model, Path(folder))


def repair_head(  # noqa: PLR0913
    manifest: Manifest,
    model: str | ModelName,
    concept: str,
    target: str,
    settings: RepairSettings | None = None,
    *,
    folder: str | Path | None = None,
    workspace: Place = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    notice: Notice = log,
) -> Repaired:
    """Mend a head with a few images of a concept that it gets wrong and one image of each of N classes.

    model    BACKBONE[=HEAD]: a name, `pretrained`, or a saved head's file; by default the backbone's own classifier,
             else plain
    concept  ATTRIBUTE=VALUE (rows of the target's class), a file of ids, or a folder of images
    target   the class that these images should get
    folder   where the page, the record, the plots and the repaired head go; by default nothing is written

    Raises `UnknownName` for a target, attribute, value or id that is none, `HeadError` for a concept without enough
    images, for more classes than there are, and for a head that is not linear.
    """
    cache, head = _to_repair(manifest, model, workspace, notice)
    repaired = repair_in(manifest, cache, head, concept, target, settings, progress=progress, notice=notice)
    if folder is not None:
        publish_repair(repaired, Path(folder))
    return repaired


def repair_groups(
    manifest: Manifest,
    model: str | ModelName,
    settings: GroupRepairSettings | None = None,
    *,
    folder: str | Path | None = None,
    workspace: Place = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    notice: Notice = log,
) -> RepairedGroups:
    """Mend the groups that a head fails with k training images of each group.

    model, folder  as `repair_head` has them

    Raises `HeadError` for a dataset without groups or without a weak one, for more images than a weak group has, and
    for a head that is not linear; `SplitError` where train, val or test has no row.
    """
    cache, head = _to_repair(manifest, model, workspace, notice)
    repaired = repair_groups_in(manifest, cache, head, settings, progress=progress, notice=notice)
    if folder is not None:
        publish_groups(repaired, Path(folder))
    return repaired


def _to_repair(
    manifest: Manifest, model: str | ModelName, workspace: Place, notice: Notice
) -> tuple[FeatureCache, Model]:
    name = ModelName.parse(model) if isinstance(model, str) else model
    analysis = open_analysis(manifest, name.backbone, workspace=workspace, notice=notice)
    (whole,) = analysis.names([name])
    return analysis.cache, analysis.model(whole)


def open_analysis(
    dataset: str | Manifest,
    backbone: str,
    folder: str | Path | None = None,
    *,
    workspace: Place = None,
    notice: Notice = log,
) -> Analysis:
    """What the steps of a spuriosity analysis start from: `embedx.discover(analysis)`, `annotate`, `rank`, `gap`, ...

    dataset   prepared before, by its name or its manifest
    backbone  whose features are looked into, and rank the images
    folder    holds what the steps find; by default results/DATASET/spuriosity

    Raises `UnknownName` or `ManifestError`.
    """
    place = workspace_at(workspace)
    analysis = Analysis.open(place, dataset, backbone, None if folder is None else Path(folder), notice=notice)
    _tell(outdated_caches(place, analysis.manifest, [backbone]), notice)
    return analysis


def run_study(
    study: str | Path,
    settings: RunSettings | None = None,
    folder: str | Path | None = None,
    *,
    small: bool = False,
    plugins_allowed: bool = False,
    workspace: Place = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    notice: Notice = log,
) -> Answer:
    """Run what is missing of a study, write its report, and return its answer.

    study     name of one that ships, or a TOML file
    folder    of its results; by default results/studies/NAME, with -small for its reduced form
    small     the reduced form; plugins_allowed  whether the file may name plug-ins, whose code then runs
    progress  called with cells done, cells to do, and what is under way

    Raises `StudyError` for a file that asks for what there is not, and when no cell can be run.
    """
    place = workspace_at(workspace)
    asked = read(str(study), small=small, plugins_allowed=plugins_allowed, workspace=place)
    results = folder_of(asked, small=small) if folder is None else Path(folder)
    return conduct(asked, place, results, settings or RunSettings(), small=small, progress=progress, notice=notice)


def _several(names: str | Sequence[str]) -> Sequence[str]:
    """One name as a sequence of one."""
    return [names] if isinstance(names, str) else names


def _tell(remarks: Sequence[str], notice: Notice) -> None:
    for line in remarks:
        notice(f"note: {line}")
