"""The text towers of open_clip: prompts as vectors in the space that image features are projected to."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._weights import freeze, weights_digest

BATCH = 64  # prompts per forward pass


@dataclass(frozen=True, eq=False)
class TextTower:
    """A frozen text tower with its tokenizer.

    spec       the pair, `clip:ViT-B-16/laion2b_s34b_b88k`; `model` without the family
    dim        of the embedding, that of image features after their projection
    weights    SHA-256 over names, types, shapes and bytes of the text tower's weights
    tokenizer  its kind or name; `context` is how many tokens it takes, those of beginning and end included
    code       SHA-256 of the code of a family outside the tree; empty for those that come along
    """

    spec: str
    dim: int
    model: str
    weights: str
    libraries: dict[str, str]
    licence: str
    tokenizer: str
    context: int
    network: Any
    tokenize: Any
    code: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that changes the numbers, as plain JSON: caches with another identity are refused."""
        return {
            "model": self.model, "weights": self.weights, "feature": "text, projected, not normalised",
            "tokenizer": self.tokenizer, "context": self.context, "precision": "float32",
            **({"code": self.code} if self.code else {}),
        }  # fmt: skip

    def encode(self, prompts: Sequence[str]) -> np.ndarray:
        """(n, dim) float32, projected and not normalised: to be compared with image features @ projection.

        Raises `ValueError` for a prompt of more tokens than the context, which open_clip would cut without a word.
        """
        import torch

        for prompt in prompts:
            if (length := _tokens(self.tokenize, prompt)) > self.context:
                shown = textwrap.shorten(prompt, 60, placeholder=" …")
                raise ValueError(
                    f"the prompt {shown!r} has {length} tokens, expected at most {self.context}; shorten it"
                )
        parts = [np.empty((0, self.dim), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(prompts), BATCH):
                tokens = self.tokenize(list(prompts[start : start + BATCH]))
                parts.append(self.network.encode_text(tokens, normalize=False).float().numpy())
        return np.concatenate(parts)


def tower(clip: Any, tokenize: Any, tokenizer: str, model: str, licence: str) -> TextTower:
    """The text side of a filled model of open_clip, whose image tower is taken off it."""
    import open_clip
    import torch

    clip.visual = torch.nn.Identity()
    freeze(clip)
    own = {k: v for k, v in clip.state_dict().items() if not k.startswith(("logit_scale", "logit_bias"))}
    with torch.inference_mode():
        dim = clip.encode_text(tokenize(["a"]), normalize=False).shape[-1]
    return TextTower(
        spec=f"clip:{model}", dim=dim, model=model, weights=weights_digest(own),
        libraries={"open_clip": open_clip.__version__}, licence=licence, tokenizer=tokenizer,
        context=tokenize.context_length, network=clip, tokenize=tokenize,
    )  # fmt: skip


def tokenizer_of(name: str) -> tuple[Any, str]:
    """(tokenizer, its kind or name): open_clip's own, or one of transformers where that can be had."""
    import open_clip

    wanted = ((open_clip.get_model_config(name) or {}).get("text_cfg") or {}).get("hf_tokenizer_name")
    try:
        return open_clip.get_tokenizer(name), wanted or "open_clip's byte pairs"
    except Exception as error:  # transformers, its hub and the network each raise their own
        raise ValueError(
            f"the tokenizer {wanted or 'of SigLIP'} of {name} could not be had "
            f"({textwrap.shorten(str(error), 120, placeholder=' …')}); install transformers and let it fetch the "
            "tokenizer once, or choose a pair with open_clip's own, such as clip:ViT-B-16/laion2b_s34b_b88k"
        ) from error


def _tokens(tokenizer: Any, prompt: str) -> int:
    """How many tokens a prompt takes uncut, those of its beginning and end included."""
    if hasattr(tokenizer, "encode"):
        return len(tokenizer.encode(prompt)) + 2
    inner = tokenizer.tokenizer(tokenizer.clean_fn(prompt)).input_ids
    return len(inner) + (tokenizer.tokenizer_mode == "clips")  # that mode adds a token for the class
