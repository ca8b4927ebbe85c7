"""`croissant.json`: what a set of masks holds, for programs, in the Croissant format 1.0 of MLCommons (JSON-LD).

The format: http://mlcommons.org/croissant/1.0. The tables are its record sets, a column a field; the PNG files are a
set of files whose path is the column `file` of `masks.csv`, `masks.h5` is a file. Addresses of files are relative:
where the folder is published, they are beside this one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedx.files import write_text
from embedx.spuriosity.publishing.licences import KNOWN, identified
from embedx.spuriosity.publishing.tables import NUMBERS, OF_PAIRS, OF_RANKING, WHOLE, columns_of_masks
from embedx.spuriosity.records.mask_set import PACKED, PAIRS, RANKING, TABLE, MaskSet

FILE = "croissant.json"
HOME = "https://github.com/embedx/embedx"
PAPER = "https://arxiv.org/abs/2212.02648"
CITE = (
    "@inproceedings{moayeri2023spuriosity, title={Spuriosity Rankings: Sorting Data to Measure and Mitigate Biases}, "
    "author={Moayeri, Mazda and Wang, Wenxiao and Singla, Sahil and Feizi, Soheil}, "
    "booktitle={Advances in Neural Information Processing Systems}, year={2023}}"
)
CONTEXT: Mapping[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty", "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract", "field": "cr:field", "fileProperty": "cr:fileProperty", "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet", "format": "cr:format", "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path",
    "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated",
    "replace": "cr:replace", "samplingRate": "cr:samplingRate", "sc": "https://schema.org/",
    "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip
"""The context that the specification recommends."""
KINDS = {PAIRS: "text/csv", TABLE: "text/csv", RANKING: "text/csv", PACKED: "application/x-hdf5"}
KEYS = {PAIRS: ("class_index", "feature"), RANKING: ("id",)}
FILES = "mask-files"


def write_croissant(folder: Path, of: MaskSet) -> Path:
    """Write `croissant.json` for a set of masks whose tables are there."""
    sizes = {name: (folder / name).stat().st_size for name in of.tables}
    write_text(folder / FILE, json.dumps(croissant(of, sizes), indent=1, ensure_ascii=False) + "\n")
    return folder / FILE


def croissant(of: MaskSet, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The document. sizes: bytes of each of the tables."""
    distribution: list[dict[str, Any]] = [
        {"@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name, "contentSize": f"{sizes[name]} B",
         "encodingFormat": KINDS[name], "sha256": sha256}
        for name, sha256 in of.tables.items()
    ]  # fmt: skip
    columns = {PAIRS: OF_PAIRS, TABLE: columns_of_masks(of.stored), RANKING: OF_RANKING}
    sets = [_records(name, columns[name], of) for name in columns if name in of.tables]
    if of.stored == "png":
        distribution.append({
            "@type": "cr:FileSet", "@id": FILES, "name": FILES, "encodingFormat": "image/png", "includes": "*/*/*.png",
            "description": f"Soft masks of {of.size[0]} x {of.size[1]} grey pixels, 255 for 1.",
        })  # fmt: skip
        sets.append(_images())
    licence = identified(of.licence)
    return {
        "@context": dict(CONTEXT), "@type": "sc:Dataset", "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"{of.dataset}-soft-masks", "description": described(of),
        "license": KNOWN.get(licence) or of.licence or "unknown: ask who published the images",
        "url": of.source if of.source.startswith(("https://", "http://")) else HOME,
        "creator": {"@type": "Organization", "name": f"made with embedx {of.embedx}", "url": HOME},
        "datePublished": of.made, "version": "1.0.0", "citeAs": CITE, "isBasedOn": of.source or of.dataset,
        "keywords": ["spurious correlations", "soft segmentation", "neural activation maps", of.dataset],
        "distribution": distribution, "recordSet": sets,
    }  # fmt: skip


def described(of: MaskSet) -> str:
    """What the set is, in a few sentences."""
    share = f"{100 * of.most:g} %" if of.most < 1 else f"{of.most:g}"
    return (
        f"Soft masks of {len(of.pairs):,} pairs of a class and a neural feature of {of.backbone} on images of "
        f"{of.dataset}: {of.masks:,} masks of {of.images:,} images, the {share} most activating {of.split} images of "
        "each pair. A mask is the activation map of the feature, divided by its own largest value, enlarged "
        f"bilinearly to {of.size[0]} x {of.size[1]} pixels, and rounded to 8 bits; it lies in the frame of the "
        "image as the network saw it, resized and cut. Beside the masks: which features are core or spurious for "
        f"their class, and the votes that say so. After Moayeri et al. 2023, {PAPER}."
    )


def _records(file: str, columns: Mapping[str, str], of: MaskSet) -> dict[str, Any]:
    """A table as a record set."""
    name = file.partition(".")[0]
    fields = [
        {"@type": "cr:Field", "@id": f"{name}/{column}", "name": f"{name}/{column}", "description": meaning,
         "dataType": _type(column), "source": {"fileObject": {"@id": file}, "extract": {"column": column}}}
        for column, meaning in columns.items()
    ]  # fmt: skip
    key = KEYS.get(file) or (("file",) if of.stored == "png" else ("row",))
    ids = [{"@id": f"{name}/{column}"} for column in key]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "key": ids if len(ids) > 1 else ids[0], "field": fields}


def _images() -> dict[str, Any]:
    """The PNG files as a record set."""
    of_file = {"fileSet": {"@id": FILES}}
    fields = [
        {"@type": "cr:Field", "@id": "images/path", "name": "images/path", "dataType": "sc:Text",
         "description": "path of the file, the column file of masks.csv",
         "source": of_file | {"extract": {"fileProperty": "fullpath"}}},
        {"@type": "cr:Field", "@id": "images/mask", "name": "images/mask", "dataType": "sc:ImageObject",
         "description": "the mask", "source": of_file | {"extract": {"fileProperty": "content"}}},
    ]  # fmt: skip
    return {"@type": "cr:RecordSet", "@id": "images", "name": "images", "key": {"@id": "images/path"}, "field": fields}


def _type(column: str) -> str:
    if column in WHOLE or column.startswith(("votes_", "maps_")):
        return "sc:Integer"
    return "sc:Float" if column in NUMBERS else "sc:Text"
