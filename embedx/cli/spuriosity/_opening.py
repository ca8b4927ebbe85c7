"""The analysis that a command works on, with a word on all that the user should know before any figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedx.spuriosity.analysis import Analysis
    from embedx.workspace import Workspace


def open_analysis(
    workspace: Workspace, dataset: str, backbone: str, folder: Path | None, models: Sequence[str] = ()
) -> Analysis:
    """The analysis; images that changed since the backbone, or those of the models, were extracted are told."""
    from embedx.cli._opening import opened
    from embedx.cli._output import remark
    from embedx.spuriosity.analysis import Analysis

    manifest = opened(workspace, dataset, [backbone, *models])
    return Analysis.open(workspace, manifest, backbone, folder, notice=remark)
