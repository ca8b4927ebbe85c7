"""Models on disk: one safetensors file, the numbers and what they are of. Never a pickle.

`NAME.safetensors` of a linear head holds `coef` (1 or k, d), `intercept` (1 or k,), `mean` and `scale` (d,), all
float64: the logits of a row x are coef @ ((x - mean) / scale) + intercept. That of another head holds `mean`, `scale`
and the arrays that the head declares (`Head.stored`), float64 too; the record says which head, with which parameters,
makes predictions of them, and its code does so. Metadata hold one JSON document under the key `embedx-head`: format,
version, the classes in order, the identity of the backbone (everything that decides its features), and the record of
the run. Version 1 kept the document in a file `NAME.json` beside it, with nothing that binds the two; up to version 3
all heads were linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from embedx.documents import Kind, built, decoded, shown
from embedx.errors import HeadError, UnknownName
from embedx.evaluation.heads import load_head
from embedx.evaluation.model import SUFFIX, Model, ModelName
from embedx.evaluation.runs import Run, supervision_as_values
from embedx.files import landing
from embedx.plugins import OUTSIDE
from embedx.probes import Affine, Head
from embedx.workspace import slug

FORMAT = "embedx-head"
ARRAYS = ("coef", "intercept", "mean", "scale")
"""Of a linear head; the last two of every head."""
LARGEST = 1 << 32
"""Bytes of a file that may be a head: 100,000 classes on 4,096 features."""
FARTHEST = float(np.finfo(np.float32).max)
"""The largest feature that a cache can hold."""


@dataclass(frozen=True)
class Document:
    """What a head is of.

    dataset   whose rows it was fitted on
    backbone  whose features it takes
    identity  everything that decides these features: weights, transform, kind, precision
    classes   names of the classes, two or more, in the order of the rows of coef
    run       the record of the run that fitted it; null where an early version wrote less

    Raises `ValueError` for a value that cannot be.
    """

    dataset: str
    backbone: str
    identity: Mapping[str, Any]
    classes: tuple[str, ...]
    run: Run | None

    def __post_init__(self) -> None:
        for name, value in (("dataset", self.dataset), ("backbone", self.backbone)):
            if not value.strip() or (name == "backbone" and "=" in value):
                raise ValueError(f"its {name} is {shown(value)}, expected a name")
        if len(self.classes) < 2 or not all(c.strip() for c in self.classes):
            raise ValueError(f"its classes are {shown(self.classes)}, expected two names or more")
        if twice := sorted({c for c in self.classes if self.classes.count(c) > 1}):
            raise ValueError(f"the class {twice[0]!r} is there twice, expected every class once")


def _third_version(document: Mapping[str, Any]) -> dict[str, Any]:
    """Earlier versions held the supervision of the run in words; of those that said less there is no record."""
    try:
        run = supervision_as_values(document["run"])
        built(run, Run)
    except (ValueError, TypeError, KeyError):
        run = None
    return {**document, "run": run}


KIND = Kind(
    Document, f"NAME{SUFFIX}", "embedx probe -o FOLDER", HeadError, FORMAT, 4, again="save the head again",
    steps={1: lambda values: values, 2: _third_version, 3: lambda values: values}, indent=None,
)  # fmt: skip


def save_model(model: Model, folder: Path) -> Path:
    """Write a model with its record as one file, whole or not at all; returns it.

    A head of the same name there, which is one of the same dataset, backbone, head and seed, is replaced. Raises
    `HeadError` for a head that is more than a few arrays, and for one without a record.
    """
    file = folder / file_name(model.record)
    write_model(model, file)
    return file


def write_model(model: Model, file: Path) -> None:
    """Write a model as a file of that name, with its record where it has one; raises `HeadError`."""
    from safetensors.numpy import save_file

    if not can_be_saved(model):
        raise HeadError(
            f"head {model.name.head!r} is more than a few arrays, and cannot be saved; fit it again when needed"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    source, names = (model.numbers, {n: n for n in ARRAYS}) if model.numbers else (model.fitted, _names(model.fitted))
    arrays = {name: np.ascontiguousarray(getattr(source, of), dtype=np.float64) for name, of in names.items()}
    try:
        document = Document(model.dataset, model.name.backbone, model.identity, model.outputs, model.run)
    except ValueError as error:
        raise HeadError(f"{file}: {error}; mend the manifest") from error
    _checked(arrays, document, file)
    with landing(file) as temporary:
        save_file(arrays, temporary, {FORMAT: KIND.text(document).rstrip()})


def can_be_saved(model: Model) -> bool:
    """Whether a head is linear, or declares the arrays that a file has to hold."""
    return model.numbers is not None or bool(model.fitted is not None and model.fitted.stored)


def file_name(run: Run) -> str:
    """`waterbirds.clip-vit-b16.group-balanced.0.safetensors` for seed 0."""
    return f"{slug(run.dataset)}.{slug(run.backbone)}.{slug(run.head)}.{run.seed}{SUFFIX}"


def load_model(file: Path, notice: Callable[[str], None] = lambda text: None) -> Model:
    """Read a head; `notice` is told of one in two files of version 1, which may have been saved at different times.

    Raises `HeadError` for what is missing, foreign, newer, damaged or could not have been saved.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as parsed

    if not file.is_file() or file.suffix != SUFFIX:
        reason = "does not exist" if not file.exists() else f"is not called NAME{SUFFIX}"
        raise HeadError(f"{file} {reason}; name a head that `embedx probe -o` saved")
    if (size := file.stat().st_size) > LARGEST:
        raise HeadError(f"{file} has {size:,} bytes, more than any head; name one that `embedx probe -o` saved")
    try:
        data = file.read_bytes()
        arrays, header = parsed(data), decoded(data[8 : 8 + int.from_bytes(data[:8], "little")])
        document = header.get("__metadata__", {}).get(FORMAT)
        beside = file.with_suffix(".json")
        if document is None and beside.is_file():
            notice(
                f"note: {file} and {beside.name} are a head of version 1, and nothing tells whether the two belong "
                "together: save it again with `embedx probe -o` to be sure"
            )
            return _checked(arrays, KIND.read(beside), file)
        if document is None:
            raise HeadError(f"{file} holds weights, and no classes to go with them; save the head again")
        return _checked(arrays, KIND.parse(document, file), file)
    except (ValueError, TypeError, KeyError, SafetensorError, RecursionError) as error:
        raise HeadError(f"{file} is no saved head ({str(error).partition(chr(10))[0]}); save it again") from error


def _checked(arrays: Mapping[str, np.ndarray], document: Document, file: Path) -> Model:
    """The head, if it is one that could have been fitted: every feature of a cache gets finite logits."""

    def refuse(what: str, expected: str) -> NoReturn:
        raise HeadError(f"{file}: {what}, expected {expected}; save the head again")

    classes = document.classes
    head = None if "coef" in arrays else _unfitted(document, file)
    for name, array, shape in _shapes(arrays, len(classes), head, refuse):
        if array.dtype != np.float64 or array.shape != shape or not array.size or not np.isfinite(array).all():
            refuse(f"{name} is {array.dtype} {array.shape} or not finite", f"finite float64 {shape}")
    if (low := float(arrays["scale"].min())) < np.finfo(np.float64).tiny:
        refuse(f"scale is down to {low:g}", "numbers above 0")
    numbers = Affine(*(arrays[name] for name in ARRAYS)) if head is None else None
    if numbers is not None and not _bounded(numbers):
        refuse("coef and intercept are so large, or scale so small, that logits overflow", "numbers that were fitted")
    if head is not None:
        fitted = {of: arrays[name] for name, of in _names(head).items()}
        more = {"classes_": np.arange(len(classes)), "n_features_in_": arrays["mean"].size, "converged_": True}
        for name, value in {**fitted, **more}.items():
            setattr(head, name, value)
    name = ModelName(document.backbone, str(file))
    return Model(name, document.dataset, classes, classes, document.identity, numbers, head, document.run)


def _shapes(
    arrays: Mapping[str, np.ndarray], k: int, head: Head | None, refuse: Callable[[str, str], NoReturn]
) -> Iterator[tuple[str, np.ndarray, tuple[int, ...]]]:
    """The arrays of a head of k classes, linear or `head`, each with the shape that it has to have."""
    if head is None:
        outputs = 1 if k == 2 else k
        shapes: dict[str, tuple[str | int, ...]] = {"coef": (outputs, "d"), "intercept": (outputs,)}
    else:
        shapes = {name.removesuffix("_"): words for name, words in head.stored.items()}
    shapes |= {"mean": ("d",), "scale": ("d",)}
    if set(arrays) != set(shapes):
        refuse(f"it holds {', '.join(sorted(arrays))}", ", ".join(shapes))
    sizes = {"k": k, "d": arrays["mean"].size}
    for name, words in shapes.items():
        array = arrays[name]
        if array.ndim == len(words):  # a word without a size gets that of the first array that has it
            sizes = {word: n for word, n in zip(words, array.shape, strict=True) if isinstance(word, str)} | sizes
        yield name, array, tuple(sizes.get(word, 0) if isinstance(word, str) else word for word in words)


def _unfitted(document: Document, file: Path) -> Head:
    """The head that a document's record names, with its parameters. Raises `HeadError`."""
    if document.run is None:
        raise HeadError(f"{file} holds no coef, and no record of the head that it is; save the head again")
    name = document.run.head.partition(" ")[0]  # its parameters are in the record
    if name.startswith(OUTSIDE):  # a file must not decide which modules are imported
        raise HeadError(f"{file} is of {name}, a head from elsewhere that is not linear; fit it again")
    try:
        head = load_head(name)(**document.run.parameters)
    except (UnknownName, TypeError) as error:
        raise HeadError(f"{file} is of a head {name!r} that there is not ({error}); fit it again") from error
    if not head.stored:
        raise HeadError(f"{file} holds no coef, expected the numbers of {name}, which is linear; save the head again")
    return head


def _names(head: Any) -> dict[str, str]:
    """{name in the file: attribute} of the arrays of a head that is not linear."""
    return {name.removesuffix("_"): name for name in ("mean_", "scale_", *head.stored)}


def _bounded(numbers: Affine) -> bool:
    """Whether the logits of all features that a cache can hold are finite, far from where float64 ends."""
    with np.errstate(over="ignore", invalid="ignore"):
        z = (FARTHEST + np.abs(numbers.mean)) / numbers.scale
        largest = np.abs(numbers.coef) @ z + np.abs(numbers.intercept)
    return bool((largest < 2.0**1000).all())
