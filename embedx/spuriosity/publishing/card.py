"""`README.md` beside a set of masks: a dataset card as the Hugging Face hub reads it, for people."""

from __future__ import annotations

import json
from pathlib import Path

from embedx.files import write_text
from embedx.spuriosity.annotations.votes import LABELS
from embedx.spuriosity.publishing.croissant import PAPER, described
from embedx.spuriosity.publishing.licences import identified
from embedx.spuriosity.publishing.tables import OF_PAIRS, OF_RANKING, columns_of_masks
from embedx.spuriosity.records.mask_set import PACKED, PAIRS, RANKING, TABLE, MaskSet

FILE = "README.md"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
WORDS = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "n>1M")


def write_card(folder: Path, of: MaskSet) -> Path:
    """Write `README.md`."""
    write_text(folder / FILE, card(of))
    return folder / FILE


def card(of: MaskSet) -> str:
    """The card: what is in the folder, how it was made, and what to keep in mind. Text of the dataset is quoted."""
    licence = identified(of.licence)
    front = {
        "pretty_name": f"Soft masks of {of.dataset}", "license": licence or "other",
        **({} if licence else {"license_name": of.licence or "unknown"}),
        "task_categories": ["image-segmentation"], "tags": ["spurious-correlations", "soft-segmentation", "croissant"],
        "size_categories": [WORDS[sum(of.masks >= size for size in SIZES)]],
        "configs": [{"config_name": name.partition(".")[0], "data_files": name}
                    for name in of.tables if name.endswith(".csv")],
    }  # fmt: skip
    yaml = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items())
    return f"---\n{yaml}\n---\n\n# Soft masks of {_line(of.dataset)}\n\n{_line(described(of))}\n\n" + "\n\n".join(
        [_files(of), _made(of), _said(of), _reading(of)]
    )


def _files(of: MaskSet) -> str:
    """What lies in the folder."""
    masks = (
        f"`{PACKED}`, dataset `masks`: row i is line i of `{TABLE}`"
        if of.stored == "h5"
        else "`CLASS/FEATURE/NAME.png`, grey, 8 bits"
    )
    columns = {PAIRS: OF_PAIRS, TABLE: columns_of_masks(of.stored), RANKING: OF_RANKING}
    rows = [f"| {masks} | {of.masks:,} masks, {of.bytes:,} bytes; 255 stands for 1, 0 for 0 |"]
    rows += [f"| `{n}` | {', '.join(f'`{c}`' for c in columns[n])} |" for n in columns if n in of.tables]
    rows += ["| `masks.json` | the record: all of this with the digests of the tables |"]
    rows += ["| `croissant.json` | the same for programs (Croissant 1.0); it says what each column means |"]
    return "## Files\n\n| file | holds |\n|---|---|\n" + "\n".join(rows)


def _made(of: MaskSet) -> str:
    """Where it comes from, and under which terms."""
    resized = {type(None): "not resized", int: f"resized to {of.resize} pixels along the shorter side"}.get(
        type(of.resize), f"resized to {of.resize}"
    )
    cue = sum(bool(pair.cue) for pair in of.pairs)
    labels = ", ".join(f"{sum(p.label == label for p in of.pairs):,} {label}" for label in LABELS)
    sources = ", ".join(sorted({pair.source for pair in of.pairs}))
    ranked = (
        f"* Ranking: `{RANKING}`, spuriosity of every image, means and deviations of the {of.ranking} rows.\n"
        if of.ranking
        else ""
    )
    return (
        f"## How it was made\n\n* Images: {_line(of.source) or 'source not stated'}; they are not in this folder.\n"
        f"* Licence of the images: {_line(of.licence) or 'not stated, ask who published them'}. The masks are made "
        "from the images and from the weights of the network; whoever passes them on keeps to the terms of both.\n"
        f"* Network: `{_line(of.backbone)}`, weights with SHA-256 `{of.weights}`, licence "
        f"{_line(of.backbone_licence) or 'not stated'}; maps of its module `{of.layer}`.\n"
        f"* Frame: an image was {resized}, then {of.size[0]} x {of.size[1]} pixels were cut from its middle.\n"
        f"* Pairs: {labels}; {cue:,} with a cue in words; said by: {sources}.\n{ranked}"
        f"* Made on {of.made} by `embedx spuriosity masks` {of.embedx}, after [Moayeri et al. 2023]({PAPER})."
    )


def _said(of: MaskSet) -> str:
    """What the masks do not say."""
    asked = [pair for pair in of.pairs if pair.valid is not None]
    valid = sum(bool(pair.valid) for pair in asked)
    return (
        "## Keep in mind\n\n"
        "* A mask says where a feature is active, not how strongly: each is divided by its own largest value. The "
        f"activation stands in `{TABLE}`.\n"
        "* It is as coarse as the map of the network, a few cells along each side, and enlarged smoothly. It is no "
        "outline of an object. Half (128) is the usual threshold.\n"
        "* Its frame is that of the image after resizing and cutting: a mask is not to be resized and cut once more.\n"
        "* Whether the masks of a pair show one and the same thing on all its images is for people to judge: they were "
        f"asked about {len(asked):,} of {len(of.pairs):,} pairs and found it of {valid:,} (`validated` in `{PAIRS}`).\n"
        "* Masks with `place` 0 belong to images that show another feature of the class most.\n"
        "* Names and notes of annotators are left out; how often each answer was given is in `pairs.csv`."
    )


def _reading(of: MaskSet) -> str:
    """How to read it."""
    command = f"embedx spuriosity corrupt {of.dataset} -b {of.backbone} --masks FOLDER"
    return (
        "## Reading it\n\n```python\nimport csv\n"
        + (
            "import h5py\n\nrows = list(csv.DictReader(open('masks.csv', newline='', encoding='utf-8')))\n"
            "mask = h5py.File('masks.h5')['masks'][int(rows[0]['row'])] / 255\n"
            if of.stored == "h5"
            else "import numpy as np\nfrom PIL import Image\n\n"
            "rows = list(csv.DictReader(open('masks.csv', newline='', encoding='utf-8')))\n"
            "mask = np.asarray(Image.open(rows[0]['file'])) / 255\n"
        )
        + f"```\n\n`{command}` and `embedx spuriosity annotate … --from masks=FOLDER` read it, too.\n"
    )


def _line(text: str) -> str:
    """Text of others in one line, without what a page would take for markup of its own."""
    return " ".join(text.split()).replace("<", "&lt;").replace("`", "'")
