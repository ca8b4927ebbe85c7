"""Which of the state dicts in a checkpoint is meant: the only one, the one asked for, or the library's own choice.

Training leaves files with several: `state_dict` beside its running average `state_dict_ema`, `student` and `teacher`,
`generator` and `discriminator`. `FILE#NAME` asks for one by name, inner names after a dot. Else a family takes what its
library's loader takes; without such a rule `state_dict`, `model` or `model_state_dict` is meant, unless another dict
has the same tensors. Any other case is an error that names them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._inert import Described

USUAL = ("state_dict", "model", "model_state_dict")
TRAINING = "optim"  # beginning of the keys under which optimisers keep their state
DEPTH = 4
SHOWN = 6
Way = tuple[str, ...]
"""Keys that lead from the top of a file to a dict."""


def split_weights_name(path: Path) -> tuple[Path, str]:
    """`FILE#NAME` as (file, name); the whole is the file where a file of that name exists."""
    file, hash_, name = str(path).rpartition("#")
    return (Path(file), name) if hash_ and not path.is_file() else (path, "")


def found_in(content: Any, way: Way = ()) -> dict[Way, Mapping[str, Any]]:
    """The innermost dicts that hold tensors; an optimiser's state is left out."""
    if not isinstance(content, dict) or len(way) > DEPTH:
        return {}
    inner: dict[Way, Mapping[str, Any]] = {}
    for key, value in content.items():
        if not key.startswith(TRAINING):
            inner |= found_in(value, (*way, key))
    own = any(isinstance(v, Described) for v in content.values())
    return inner or ({way: content} if own else {})


def chosen_state_dict(
    path: Path, candidates: Mapping[Way, Mapping[str, Any]], name: str, preferred: Sequence[str]
) -> Way:
    """The dict that is meant, () where there is none at all.

    name       asked for, or empty
    preferred  keys that the library's own loader looks for, in its order

    Raises `ValueError` for a name that is not there, and where nothing says which is meant.
    """
    if name:
        ways = [way for way in candidates if state_dict_name(way) == name]
        if len(ways) != 1:
            raise ValueError(
                f"{path} holds no state dict called {name[:80]!a}; it holds {listed(candidates) or 'none'}"
            )
        return ways[0]
    way = _meant(candidates, preferred)
    if way is None:
        raise ValueError(
            f"{path} holds {len(candidates)} state dicts ({listed(candidates)}), and nothing says which is meant; "
            f"choose one with {path.name}#{next(map(state_dict_name, candidates))}"
        )
    return way


def state_dict_name(way: Way) -> str:
    """A way as it is written after the `#`."""
    return ".".join(way)


def listed(candidates: Mapping[Way, Any]) -> str:
    """Some names, escaped for the terminal: they come from a stranger's file."""
    names = [ascii(state_dict_name(way)[:80])[1:-1] or "the file itself" for way in candidates]
    return ", ".join(names[:SHOWN]) + (f", … ({len(names):,} in all)" if len(names) > SHOWN else "")


def _meant(candidates: Mapping[Way, Mapping[str, Any]], preferred: Sequence[str], depth: int = 0) -> Way | None:
    if len(candidates) < 2:
        return next(iter(candidates), ())
    for key in (*preferred, *USUAL):
        inside = {way: state for way, state in candidates.items() if way[depth : depth + 1] == (key,)}
        if not inside:
            continue
        way = _meant(inside, preferred, depth + 1)
        others = [state for other, state in candidates.items() if other not in inside]
        if way is None or (key not in preferred and any(_alike(candidates[way], state) for state in others)):
            return None
        return way
    return None


def _alike(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether another dict may be the same network: it has half of its tensors, under a wrapper's names or not."""
    bare = {name.partition(".")[2] or name for name in theirs} | theirs.keys()
    return 2 * sum(name in bare or (name.partition(".")[2] or name) in bare for name in ours) >= len(ours)
