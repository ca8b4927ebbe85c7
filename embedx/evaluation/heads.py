"""Heads by name: their classes, how each is chosen, and which of them the data can feed."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedx import plugins
from embedx.data.manifest import Manifest
from embedx.errors import HeadError, UnknownName
from embedx.evaluation.head_spec import HeadSpec, knows_groups
from embedx.evaluation.selection import RULES
from embedx.probes import ChosenBy, ContractError, Head, Need, check_head

STANDARD = (
    "zero-shot", "nearest-mean", "plain", "class-balanced", "jtt", "afr", "bias-tuned",
    "reweighted", "group-balanced", "group-dro", "dfr",
)  # fmt: skip
"""What a comparison runs by default, as far as the data can feed it."""
ALL = "all"
"""In the place of names: every head that the data can feed."""


@dataclass(frozen=True, order=True)
class HeadRequest:
    """A head by name, with parameters in the place of those that its grid or its class would give.

    parameters  sorted pairs of name and value
    partition   what it gets as groups, where that is not what it declares
    """

    name: str
    parameters: tuple[tuple[str, Any], ...] = field(default=())
    partition: str = ""

    @classmethod
    def of(cls, name: str, parameters: Mapping[str, Any]) -> HeadRequest:
        """Of a name and parameters, of which `partition` says what the head gets as groups.

        Raises `UnknownName` or `HeadError` for what the head does not take.
        """
        kind, parameters = load_head(name), dict(parameters)
        partition = str(parameters.pop("partition", ""))
        if partition and Need.GROUPS not in kind.needs:
            raise HeadError(f"head {name!r} takes no groups, so that no partition can be chosen for it")
        names = inspect.signature(kind).parameters.keys() - {"random_state"}
        if unknown := [key for key in parameters if key not in names]:
            raise UnknownName(f"head {name!r} has no parameter {unknown[0]!r}: {plugins.nearest(unknown[0], names)}")
        return cls(name, tuple(sorted(parameters.items())), partition)

    @property
    def label(self) -> str:
        """What its runs are called: `afr`, or `afr gamma=4.0 share=0.5`."""
        shown = [*self.parameters, *([("partition", self.partition)] if self.partition else [])]
        return " ".join([self.name, *(f"{key}={value}" for key, value in shown)])

    @classmethod
    def parse(cls, text: str) -> HeadRequest:
        """The inverse of `label`: "afr gamma=4 share=0.5". Raises as `of`, and `HeadError` for other words."""
        name, *words = text.split() or [text]
        parameters: dict[str, Any] = {}
        for word in words:
            key, equals, value = word.partition("=")
            if not (key and equals):
                raise HeadError(f"head {name!r}: {word!r} is no parameter; write {name} NAME=VALUE")
            try:
                parameters[key] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                parameters[key] = value
        return cls.of(name, parameters)


def load_head(name: str) -> type[Head]:
    """The class of a head: in `probes/group_balanced.py` that is `GroupBalanced`.

    Raises `UnknownName`, and `HeadError` for a file without it or one whose declarations are not what they have to be.
    """
    module = plugins.load(plugins.HEADS, name)
    stem = name.removeprefix(plugins.OUTSIDE).rpartition(".")[2]
    title = "".join(part.capitalize() for part in stem.replace("-", "_").split("_"))
    head = getattr(module, title, None)
    if not (inspect.isclass(head) and issubclass(head, Head)):
        raise HeadError(f"head {name!r}: {module.__name__} holds no Head named {title}; a head is named for its file")
    try:
        check_head(head)
    except ContractError as error:
        raise HeadError(f"head {name!r}: {error}") from error
    return head


def default_rule(kind: type[Head], grouped: bool = True) -> str:
    """As the head's authors choose; by the worst group only where there are groups or the head needs them anyway."""
    if kind.chosen_by is ChosenBy.SPURIOSITY:
        return "spuriosity-halves"
    if knows_groups(kind) or (grouped and kind.chosen_by is ChosenBy.WORST_GROUP):
        return "worst-group"
    return "average"


def head_spec(head: str | HeadRequest, rule: str | None = None, *, grouped: bool = True, **further: Any) -> HeadSpec:
    """A head by name, or as `HeadRequest.parse` reads it, chosen by `rule`, by default by its own.

    further  other fields of `HeadSpec`

    The settings of a request are those of the head's grid with the parameters that are asked for, each once; of a grid
    with published settings among others only those that look at all of these.

    grouped  whether there are groups to choose by
    Raises `UnknownName` or `HeadError`.
    """
    request = head if isinstance(head, HeadRequest) else HeadRequest.parse(head)
    kind, parameters = load_head(request.name), dict(request.parameters)
    further = {"partition": request.partition, **further}
    if parameters:
        settings: list[dict[str, Any]] = []
        for setting in kind.settings_of(str(parameters.get("variant", "default"))):
            mine = {**setting, **parameters}
            if mine not in settings and _heeds(kind, setting, parameters):
                settings.append(mine)
        further = {"parameters": parameters, "settings": settings, **further}
    return HeadSpec(request.label, kind, rule or default_rule(kind, grouped), **further)


def _heeds(kind: type[Head], setting: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
    """Whether a setting of the grid is of the variant that is asked for, and looks at every parameter."""
    own = setting.get("variant")
    if own is None or parameters.get("variant", own) != own:
        return own is None
    return not (kind.published and parameters.keys() & kind.published.without)


def heads_for(
    manifest: Manifest, among: Sequence[str] | None = None, *, prompts: bool = False, ranked: bool = False
) -> tuple[str, ...]:
    """The heads that the data can feed, of `among`, by default of the standard ones.

    `prompts` says there are some, `ranked` that there is a spuriosity ranking.
    """
    installed = plugins.names(plugins.HEADS)
    kinds = {name: load_head(name) for name in (STANDARD if among is None else among) if name in installed}
    return tuple(
        name
        for name, kind in kinds.items()
        if (manifest.groups is not None or not knows_groups(kind))
        and (prompts or Need.PROMPTS not in kind.needs)
        and (ranked or Need.SPURIOSITY not in kind.needs)
    )


def every_head(manifest: Manifest, *, prompts: bool = False, ranked: bool = False) -> tuple[str, ...]:
    """Every head in `probes` that the data can feed."""
    return heads_for(manifest, plugins.names(plugins.HEADS), prompts=prompts, ranked=ranked)


def heads_asked(
    manifest: Manifest, heads: Sequence[str | HeadRequest], *, prompts: bool = False, ranked: bool = False
) -> tuple[str | HeadRequest, ...]:
    """The heads that a comparison is asked for: those named, or by default the standard ones, or with `ALL` every one.

    Those named are taken whether the data can feed them or not.
    """
    if ALL in heads:
        return every_head(manifest, prompts=prompts, ranked=ranked)
    return tuple(dict.fromkeys(heads)) or heads_for(manifest, prompts=prompts, ranked=ranked)


def needs_ranking(head: HeadSpec) -> bool:
    """Whether a head is fitted or chosen by a spuriosity ranking."""
    return Need.SPURIOSITY in head.kind.needs or (head.rule in RULES and RULES[head.rule].over == "spuriosity")
