"""Finished runs on disk, so that a comparison that was killed goes on where it stopped.

One JSON line per run, `{"key": ..., "run": {...}}`, appended and synced as soon as a head is done, by as many
comparisons at once as there are. The key is a digest of everything that decides the run; a line that was cut short, or
is damaged, counts as not there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from embedx import journal
from embedx.documents import Kind
from embedx.errors import ResultsError
from embedx.evaluation import evaluate, leaks, runs
from embedx.evaluation.head_spec import HeadSpec
from embedx.evaluation.runs import Run
from embedx.plugins import outside
from embedx.probes import Head
from embedx.store import FeatureCache

FILE = "finished.jsonl"


@dataclass(frozen=True)
class Line:
    """One finished run.

    key  SHA-256 of everything that decides the run, the code that makes and writes it included
    run  its record
    """

    key: str
    run: Run


KIND = Kind(Line, FILE, "embedx compare", ResultsError, indent=None)


class Finished:
    """The runs in `path`, as {key: record}; without a path nothing is kept."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.runs: dict[str, Run] = {}
        data = path.read_bytes() if path is not None and path.exists() else b""
        for line in data.splitlines():
            with suppress(ResultsError):
                entry = KIND.parse(line, path)
                self.runs[entry.key] = entry.run

    def add(self, entries: Sequence[tuple[str, Run]]) -> None:
        """Keep runs; they are on the disk when this returns."""
        self.runs.update(entries)
        if self.path is None:
            return
        journal.append(self.path, KIND, *(Line(key, run) for key, run in entries))


def key(head: HeadSpec, seed: int, data: dict[str, Any]) -> str:
    """SHA-256 of all that decides a run: the data, the head and its settings, the rule, the seed, and the code."""
    vectors = [] if head.prompts is None else [x if x is None else np.asarray(x).tolist() for x in head.prompts]
    prompts = hashlib.sha256(json.dumps(vectors).encode()).hexdigest()
    facts = {
        "data": data, "head": head.name, "parameters": head.kind(**head.parameters).get_params(),
        "settings": head.grid, "grows": head.limits, "tried_with": head.cheap, "rule": head.rule,
        "seed": seed, "prompts": prompts, "versions": runs.versions(), "code": code(head.kind),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def of_cache(cache: FeatureCache, manifest_digest: str) -> dict[str, Any]:
    """What decides the rows and features that are joined."""
    return {
        "manifest": manifest_digest, "backbone": cache.header.backbone, "dtype": cache.header.dtype,
        "ids": cache.header.ids_digest, "provenance": dict(cache.header.provenance),
        "status": hashlib.sha256(cache.status.tobytes()).hexdigest(),
    }  # fmt: skip


@cache
def code(kind: type[Head]) -> str:
    """SHA-256 of the code that a head's numbers come from: the head's, that of fitting, and all that these import."""
    heads = (c.__module__ for c in kind.__mro__ if issubclass(c, Head))
    return outside.digest(evaluate.__name__, leaks.__name__, *heads, ours=True)
