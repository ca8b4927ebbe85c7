"""What a study leaves on disk: a record of every cell, and `study.json`, its answer with all that it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedx.documents import Kind
from embedx.errors import StudyError


@dataclass(frozen=True)
class CacheFacts:
    """The feature cache of one backbone on one cell.

    dim      features of a row
    bytes    of the file
    weights  SHA-256
    rows     computed when it was last made
    seconds  what that took: all backbones of a cell share a pass
    """

    dim: int
    bytes: int
    weights: str
    rows: int
    seconds: float


@dataclass(frozen=True)
class CellRecord:
    """A cell of which every run is finished.

    table     key of the table that it is of
    axes      {option: value} of those that are swept
    dataset   name under which it is prepared
    source    dataset plug-in that it is of
    options   of the source, in words
    digest    of the manifest
    rows      of the manifest
    caches    {backbone: its cache}
    runs      how many
    seconds   what the fits took, when they were made
    remarks   what was told on the way
    """

    table: str
    axes: Mapping[str, Any]
    dataset: str
    source: str
    options: Mapping[str, str]
    digest: str
    rows: int
    caches: Mapping[str, CacheFacts]
    runs: int
    seconds: float
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What a study says to one question.

    question  of the study, or of a section of it
    answer    in words
    evidence  the test that supports it; empty where the answer only tells what was run
    """

    question: str
    answer: str
    evidence: str


@dataclass(frozen=True)
class StudyRecord:
    """A study and what it found.

    study     name of its file
    small     whether in its reduced form
    digest    SHA-256 of the study as it was run
    asked     all that the file says, with the reduced form in place where it was asked for
    question  one sentence
    summary   the answer in words
    findings  question by question
    cells     {name of its folder: the cell}
    failed    {name of a cell: why it has no runs}
    versions  {library: version} that the numbers depend on
    """

    study: str
    small: bool
    digest: str
    asked: Mapping[str, Any]
    question: str
    summary: str
    findings: tuple[Finding, ...]
    cells: Mapping[str, CellRecord]
    failed: Mapping[str, str]
    versions: Mapping[str, str]


CELL = Kind(CellRecord, "cell.json", "embedx study NAME", StudyError, "embedx-study-cell", 1)
STUDY = Kind(StudyRecord, "study.json", "embedx study NAME", StudyError, "embedx-study", 1)
