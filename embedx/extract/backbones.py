"""Backbones by name: `FAMILY:MODEL` or a short name, or `NAME=` before either to call the cache something else."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from embedx import plugins
from embedx.errors import BackboneError, UnknownName
from embedx.extract.graded import weights_of
from embedx.extractors import ALIASES, Backbone, state_dict_taken
from embedx.plugins.outside import digest


def split_name(text: str) -> tuple[str, str]:
    """`(name of the cache, spec)` of a backbone as the user wrote it; a short name names the cache, not the spec."""
    name, equals, spec = text.partition("=")
    return (name, _resolved(spec)) if equals else (text, _resolved(text))


def by_name(backbones: Sequence[str]) -> dict[str, str]:
    """{name of the cache: spec} of the backbones as written, each named once.

    Raises `BackboneError` for none at all, for two of one name, and for an empty name.
    """
    names = dict(map(split_name, backbones))
    if not names:
        raise BackboneError("no backbone is named; give at least one, such as tiny:broad")
    if len(names) < len(set(backbones)):
        raise BackboneError("two backbones have the same name; NAME in NAME=FAMILY:MODEL must differ")
    if not all(names):
        raise BackboneError("a backbone has an empty name; NAME in NAME=FAMILY:MODEL must not be empty")
    return names


def load_backbone(
    spec: str, weights: Path | None = None, notice: Callable[[str], None] = lambda text: None
) -> Backbone:
    """The frozen backbone `FAMILY:MODEL`, or the one that a short name stands for.

    notice  told before weights are trained here, which takes a moment

    Of a plug-in outside the tree the code counts among the weights: it decides the features, and may be all there is.
    Raises `UnknownName` for an unknown family or short name and `BackboneError` for a model that cannot be had.
    """
    spec = _resolved(spec)
    outside = plugins.OUTSIDE if spec.startswith(plugins.OUTSIDE) else ""
    family, _, model = spec.removeprefix(outside).partition(":")
    if not outside and family not in plugins.names(plugins.BACKBONES):
        raise UnknownName(f"unknown backbone {spec!r}: {_nearest(family)}")
    plugin = plugins.load(plugins.BACKBONES, outside + family)
    if not (callable(getattr(plugin, "load", None)) and callable(getattr(plugin, "models", None))):
        raise BackboneError(
            f"{outside}{family} is no backbone family: it has no functions load(model, weights), models()"
        )
    if not model:
        examples = ", ".join(f"{outside}{family}:{m}" for m in models_of(plugin)[:4])
        raise BackboneError(f"{spec!r} names a family of backbones, not a model; for example {examples}")
    try:
        backbone = plugin.load(model, weights_of(plugin, model, weights, notice))
        if not isinstance(backbone, Backbone):
            raise BackboneError(
                f"{outside}{family} is no backbone family: its load returned {type(backbone).__name__}, "
                "expected a Backbone"
            )
        backbone = replace(backbone, spec=spec)
        if weights is not None and not outside:  # whose files may be of any kind
            backbone = replace(backbone, remark=state_dict_taken(weights, _preferred(plugin, model)))
    except (KeyError, IndexError):  # Python's own, of a bug in the plug-in: names that do not exist are LookupError
        raise
    except (ValueError, LookupError, OSError) as error:
        raise BackboneError(f"backbone {spec}: {error}") from error
    if not outside:
        return backbone
    code = digest(plugin.__name__)
    return replace(backbone, code=code, weights=hashlib.sha256(f"{backbone.weights} {code}".encode()).hexdigest())


def models_of(plugin: ModuleType) -> Sequence[str]:
    """The models that a family names. Raises `BackboneError` where its `models` returns anything but their names."""
    names = plugin.models()
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise BackboneError(
            f"{plugin.__name__} is no backbone family: its models() returned {type(names).__name__}, expected a "
            "sequence of names"
        )
    return names


def preferences() -> dict[str, Sequence[str]]:
    """{family: keys of a checkpoint that it prefers}, of families that say so; `checkpoint` once for each library."""
    preferred = {
        name: getattr(plugins.load(plugins.BACKBONES, name), "PREFERRED", None)
        for name in plugins.names(plugins.BACKBONES)
    }
    whole: dict[str, Sequence[str]] = {name: keys for name, keys in preferred.items() if isinstance(keys, tuple)}
    parts = {name: keys for name, keys in preferred.items() if isinstance(keys, Mapping)}
    return whole | {f"{name}:{part}": keys for name, of in parts.items() for part, keys in of.items()}


def _preferred(plugin: ModuleType, model: str) -> Sequence[str]:
    """Which state dict of a checkpoint a family takes; `checkpoint` says it for each library."""
    preference = getattr(plugin, "PREFERRED", ())
    return preference.get(model.partition("/")[0], ()) if isinstance(preference, Mapping) else preference


def _resolved(spec: str) -> str:
    return ALIASES[spec].spec if spec in ALIASES else spec


def _nearest(name: str) -> str:
    families = plugins.names(plugins.BACKBONES)
    close = difflib.get_close_matches(name, [*families, *ALIASES], n=3, cutoff=0.5)
    guess = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{guess}families: {', '.join(families)}; short names: see `embedx list backbones`"
