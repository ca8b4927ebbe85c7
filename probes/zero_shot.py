"""Zero-shot: the class whose text prompt is nearest. Needs prompts and a cache of the same image-text model.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision". No label is used; the
training rows only say which classes there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from ._data import Data
from ._fit import Fit
from ._text_head import TextHead, zero_shot
from ._variants import Published


class ZeroShot(TextHead):
    """logit_c = scale * cos(x P, t_c), for the text vector t_c of class c, the projection P and the model's scale."""

    published: ClassVar[Published | None] = Published()

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        return [zero_shot(data.known_prompts())] * len(variants)
