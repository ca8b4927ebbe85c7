"""Licences as others name them: by the identifiers of SPDX and of the Hugging Face hub, where the words are clear."""

from __future__ import annotations

import re

KNOWN = {
    "cc-by-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "cc-by-sa-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "cc-by-nc-4.0": "https://creativecommons.org/licenses/by-nc/4.0/",
    "cc-by-nc-sa-4.0": "https://creativecommons.org/licenses/by-nc-sa/4.0/",
    "cc0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "mit": "https://spdx.org/licenses/MIT.html",
    "apache-2.0": "https://spdx.org/licenses/Apache-2.0.html",
}
"""{identifier: address of the text}."""


def identified(words: str) -> str:
    """The identifier of a licence in words, such as `CC BY 4.0`; "" where it is none of those known, and no guess."""
    name = re.sub(r"[\s_]+", "-", words.strip().lower())
    return name if name in KNOWN else ""
