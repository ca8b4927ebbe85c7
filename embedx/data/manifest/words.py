"""Words of a table as people see them: blanks around one are not part of it, and two spellings may look alike.

`tidy` takes off what cannot be seen at the ends; manifests are made of tidy words. `look` is the same for two words
that look alike, or are the same number; what looks alike is never taken for one unasked.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from decimal import Decimal

# Not seen on paper: soft hyphen, zero-width and directional marks, the byte order mark, letters that are blank.
INVISIBLE = "\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u115f\u1160\u2800\u3164\uffa0"
ENDS = re.compile(rf"\A[\s{INVISIBLE}]+|[\s{INVISIBLE}]+\Z")
HIDDEN = re.compile(f"[{INVISIBLE}\ufe00-\ufe0f]")  # and selectors of a letter's or an emoji's variant
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# Blanks, underscores and hyphens between two characters; a hyphen after a blank and before a digit is a sign.
JOINT = re.compile(r"(?<=[^\s_-])(?:[\s_]+(?=-\d)|[\s_-]+(?=[^\s_-]))")
# Dashes, quotes, and Cyrillic and Greek letters that print as Latin ones.
TWINS = {
    **dict.fromkeys(map(ord, "‐‑‒–—―−⁃˗"), "-"), **dict.fromkeys(map(ord, "‘’‛ʼ′´`"), "'"),
    **dict.fromkeys(map(ord, "“”„‟″"), '"'),
    **str.maketrans("АВЕЅІЈКМНОРСТУХаеѕіјорсух", "ABESIJKMHOPCTYXaesijopcyx"),
    **str.maketrans("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABEZHIKMNOPTYXo"),
}  # fmt: skip
MISSING = {"nan", "-nan", "n/a", "#n/a", "<na>", "nat", "null", "none", "-", "--", "?", "??", "."}
NOT_AVAILABLE = ("NA", "na")  # but not Na, which is sodium


def tidy(word: str) -> str:
    """The word without blanks of any kind, or invisible characters, around it."""
    return word.strip() if word.isascii() else ENDS.sub("", word)


def look(word: str) -> str | Decimal:
    """Equal for words that look alike: in case, width, accents' encoding, blanks, dashes; and for equal numbers."""
    plain = tidy(HIDDEN.sub("", unicodedata.normalize("NFKC", tidy(word).translate(TWINS))))
    if NUMBER.fullmatch(plain):
        with suppress(ArithmeticError):  # an exponent without bounds
            return Decimal(plain)
    folded = unicodedata.normalize("NFKC", plain.casefold())
    return JOINT.sub(" ", folded).strip(" _") or folded


def shape(word: str) -> str:
    """Equal for words that the eye cannot tell apart at all."""
    return unicodedata.normalize("NFC", HIDDEN.sub("", re.sub(r"\s+", " ", word)).translate(TWINS)).strip()


def reads_missing(word: str) -> bool:
    """Whether programs that write tables write this for a value that is not there."""
    return word in NOT_AVAILABLE or look(word) in MISSING


def rows(n: int) -> str:
    """A number of rows in words."""
    return f"{n:,} row{'s' * (n != 1)}"
