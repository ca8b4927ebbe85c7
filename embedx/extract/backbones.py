"""Backbones by name: `FAMILY:MODEL`, or `NAME=FAMILY:MODEL` to call the cache something else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from embedx import plugins
from embedx.errors import BackboneError
from extractors._backbone import Backbone


def split_name(text: str) -> tuple[str, str]:
    """`(name of the cache, spec)` of a backbone as the user wrote it."""
    name, equals, spec = text.partition("=")
    return (name, spec) if equals else (text, text)


def load_backbone(spec: str, weights: Path | None = None) -> Backbone:
    """The frozen backbone `FAMILY:MODEL`.

    Raises `UnknownName` for an unknown family and `BackboneError` for a model that cannot be had.
    """
    outside = plugins.OUTSIDE if spec.startswith(plugins.OUTSIDE) else ""
    family, _, model = spec.removeprefix(outside).partition(":")
    plugin = plugins.load(plugins.BACKBONES, outside + family)
    if not (callable(getattr(plugin, "load", None)) and callable(getattr(plugin, "models", None))):
        raise BackboneError(
            f"{outside}{family} is no backbone family: it has no functions load(model, weights), models()"
        )
    if not model:
        examples = ", ".join(f"{outside}{family}:{m}" for m in plugin.models()[:4])
        raise BackboneError(f"{spec!r} names a family of backbones, not a model; for example {examples}")
    try:
        return replace(plugin.load(model, weights), spec=spec)
    except (ValueError, LookupError, OSError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise BackboneError(f"backbone {spec}: {message}") from error
