"""Which form a file of real labels has, and how it is read: as data, never as code, and no path in it is followed.

real.json    ReaL (Beyer et al. 2020): for each of the 50,000 validation images of ImageNet a list of classes
*.json       labelerrors.com (Northcutt, Athalye and Mueller 2021): votes on labels that were doubted
anything else  a CSV with the columns id and labels, or id and label
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from embedx.data.manifest import Manifest
from embedx.documents import LARGEST, NoJSON, decoded, shown
from embedx.errors import SpuriosityError
from embedx.spuriosity.real_labels import by_hand, public
from embedx.spuriosity.real_labels.table import RealLabels, collected

FORMS = (
    "ReaL's real.json (a list of lists of class numbers), a file of labelerrors.com (a list of records with votes), or "
    "a CSV with the columns id and labels"
)


def read_real_labels(file: Path, manifest: Manifest) -> RealLabels:
    """The real labels of the rows of a manifest.

    Raises `SpuriosityError` for a file that is missing, empty or of no known form, for rows and classes that the
    manifest does not have, for rows that are there twice, and for a table that knows no label at all.
    """
    try:
        size = file.stat().st_size
        data = file.read_bytes() if size <= LARGEST else b""
    except FileNotFoundError as error:
        raise SpuriosityError(f"{file} does not exist; name {FORMS}") from error
    except IsADirectoryError as error:
        raise SpuriosityError(f"{file} is a folder; name a file: {FORMS}") from error
    if size > LARGEST:
        raise SpuriosityError(f"{file} has {size:,} bytes, expected at most {LARGEST:,}; name {FORMS}")
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        raise SpuriosityError(f"{file} is empty; expected {FORMS}")
    try:
        if start[:1] in (b"[", b"{") or file.suffix.lower() == ".json":
            form, entries = _of_json(decoded(data), manifest)
        else:
            form, entries = "csv", by_hand.entries(data, manifest)
    except NoJSON as error:
        words = str(error).removesuffix(", expected an object").removesuffix(", expected JSON")
        raise SpuriosityError(f"{file}: {words}; expected {FORMS}") from error
    except (ValueError, RecursionError) as error:
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise SpuriosityError(f"{file}: {problem}") from error
    real = collected(file.name, hashlib.sha256(data).hexdigest(), form, len(manifest), entries)
    if not real.known.any():
        raise SpuriosityError(
            f"{file} lists {int(real.listed.sum()):,} rows of {manifest.name} and knows the real labels of none; "
            "nothing can be checked against it"
        )
    return real


def _of_json(content: Any, manifest: Manifest) -> tuple[str, list[Any]]:
    """The form of a document, and what it says. Raises `ValueError`."""
    if isinstance(content, list) and content and all(isinstance(x, list) for x in content):
        return "ReaL", public.real(content, manifest)
    if isinstance(content, list) and content and all(isinstance(x, dict) for x in content):
        return "labelerrors.com", public.label_errors(content, manifest)
    raise ValueError(f"it holds {shown(content)}, expected {FORMS}")
