"""A gallery of an analysis: plain files that open from disk, made of what its folder holds.

    site/index.html            all classes, to be searched and sorted: features, spurious count, gap
    site/class/NNNN-NAME.html  a class: gaps, collision, features with pictures and votes, other classes of them
    site/overall.html          models, gap against k, accuracy by spuriosity, tuning before and after
    site/review.html           the queue of `embedx spuriosity review`
    site/images/               the pictures, so that the folder can be moved or sent as it is
    site/site.json             what it was made of: `Gallery`

Only the discovery has to be there; what else is missing is named with the command that makes it. Links are relative and
nothing is fetched. The folder is made aside and put in place when it is whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedx.documents import Kind
from embedx.errors import SpuriosityError
from embedx.files import landing_folder, locked
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.features.activations import Progress, silent
from embedx.spuriosity.pages.gallery import ByClass, Site, class_page, index_page, overall_page, review_page
from embedx.workspace import slug

FOLDER, FACTS = "site", "site.json"


@dataclass(frozen=True)
class Gallery:
    """What a gallery was made of; the file marks its folder as ours, which may be replaced.

    classes  how many
    missing  {what was not there: the command that makes it}
    """

    dataset: str
    backbone: str
    classes: int
    missing: Mapping[str, str]


KIND = Kind(Gallery, f"{FOLDER}/{FACTS}", "embedx spuriosity site", SpuriosityError, "embedx-site", 1)


def site(analysis: Analysis, *, progress: Progress = silent) -> Path:
    """Make the gallery of an analysis out of its folder; returns the index.

    Neither the dataset nor its features have to be at hand. Raises `SpuriosityError` for what is damaged, of another
    backbone, or in the way; `ProvenanceError` for what is of another network.
    """
    folder, findings = analysis.folder, analysis.findings()
    discovery = findings.discovery
    if (slug(discovery.dataset), slug(discovery.backbone)) != (slug(analysis.dataset), slug(analysis.backbone)):
        raise SpuriosityError(
            f"{folder} holds a discovery on {discovery.dataset} with {discovery.backbone}, asked for was "
            f"{analysis.dataset} with {analysis.backbone}; name those, or another folder with -o"
        )
    final = folder / FOLDER
    if final.exists() and not _ours(final):
        raise SpuriosityError(f"{final} holds other files than a gallery; move them away, or choose another -o")
    with locked(final), landing_folder(final) as aside:
        (aside / "class").mkdir()
        _write(Site(folder, findings), aside, progress)
    return final / "index.html"


def _ours(folder: Path) -> bool:
    if folder.is_dir() and not any(folder.iterdir()):
        return True
    try:
        return bool(KIND.read(folder / FACTS))
    except (OSError, SpuriosityError):
        return False


def _write(site: Site, folder: Path, progress: Progress) -> None:
    """All pages, and then the pictures that they show."""
    classes = site.findings.discovery.classes
    by = ByClass.of(site)
    try:
        _put(folder / "index.html", index_page(site, by))
        _put(folder / "overall.html", overall_page(site))
        for label, name in enumerate(classes):
            progress(label, len(classes), name)
            _put(folder / "class" / site.names[label], class_page(site, by, label))
        progress(len(classes), len(classes), "")
        if site.flags:
            _put(folder / "review.html", review_page(site))
    except (KeyError, TypeError, AttributeError) as error:
        raise SpuriosityError(f"{site.source} holds a file of another shape ({error}); make it again") from error
    for parent in {(folder / place).parent for place in site.images.values()}:
        parent.mkdir(parents=True, exist_ok=True)
    for file, place in site.images.items():
        _bring(site.source / file, folder / place)
    _put(folder / FACTS, KIND.text(Gallery(site.dataset, site.backbone, len(classes), site.missing)))


def _put(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="")


def _bring(source: Path, place: Path) -> None:
    """The picture itself: the same file under a second name where the disk can, else a copy."""
    try:
        if source.is_symlink():  # the site is to hold the picture, wherever it goes
            shutil.copyfile(source, place)
        else:
            os.link(source, place)
    except FileNotFoundError as error:
        raise SpuriosityError(
            f"{source} is gone; draw it again with `embedx spuriosity panels` or `embedx spuriosity review`"
        ) from error
    except OSError:
        shutil.copyfile(source, place)
