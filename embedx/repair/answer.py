"""Did it learn the class, did it learn the concept, or does it say the target more? Decided by tests, or not at all.

All differences are paired: the repaired head against the original one, or against the bias-only head that says the
target as often on rows of other classes ("matched"), on the same images, for the same seed. Of test images and seeds

    repaired      right(repaired) - right(original)      on the concept
    concept       right(repaired) - right(matched)       on the concept
    others        right(repaired) - right(matched)       on other images of the target's class
    said_target   said(repaired) - said(original)        on rows of other classes

Images, or their subjects where these are known, and seeds are both draws (`statistics.CrossedMean`). Tests are one-
sided, at 5 %; "within" tests that a difference is below the margin. Holm's correction is over all tests of the
answer.

    no repair               `repaired` is not above 0
    class                   `others` is above 0, and not within the margin
    concept                 `concept` is above 0, and `others` within the margin
    says the target more    `concept` is within the margin, and `said_target` above 0
    cannot tell             else, or with one seed

So a head that says the target as often as needed gets no credit for it: what it gains beyond is what it learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embedx.repair.records import Answer, Gain, Verdict
from embedx.statistics import CrossedMean, holm

LEVEL = 0.05
SENTENCES: dict[Verdict, str] = {
    "class": (
        "It learned the class: other images of {target} gain {others} over a head that only says {target} as often."
    ),
    "concept": (
        "It learned the concept and no more of the class: images of the concept gain {concept} over a head that only "
        "says {target} as often, other images of {target} {others}."
    ),
    "says the target more": (
        "It says {target} more: over a head whose bias alone was raised until it says {target} as often, images of the "
        "concept gain {concept}."
    ),
    "no repair": (
        "It repaired nothing that can be shown once all tests are corrected for: images of the concept gain {repaired}."
    ),
    "cannot tell": (
        "The data cannot tell which: over a head that only says {target} as often, images of the concept gain "
        "{concept}, other images of {target} {others}."
    ),
}


@dataclass(frozen=True, eq=False)
class Differences:
    """The four differences of the module, each (seeds, images); NaN where an image did not report for a seed.

    others has no column where no other image of the target's class reports
    clusters   whose the images of each of the four are, (images,) of any kind; None: each is its own
    """

    repaired: np.ndarray
    concept: np.ndarray
    others: np.ndarray
    said_target: np.ndarray
    clusters: tuple[np.ndarray | None, ...] = (None,) * 4


def answered(differences: Differences, target: str, margin: float) -> Answer:
    """The answer for one setting; margin: a difference of accuracies that counts as none."""
    d, (of_repaired, of_concept, of_others, of_said) = differences, differences.clusters
    every = {
        "repaired": (d.repaired, of_repaired), "concept": (d.concept, of_concept),
        "said_target": (d.said_target, of_said),
    }  # fmt: skip
    if d.others.shape[1]:
        every["others"] = (d.others, of_others)
    means = {name: CrossedMean.of(*values) for name, values in every.items()}
    p = holm([m.p_above(0.0) for m in means.values()] + [1 - m.p_above(margin) for m in means.values()])
    gains = {
        name: Gain(m.value, m.interval.low, m.interval.high, m.images, m.seeds, p[i], p[i + len(means)])
        for i, (name, m) in enumerate(means.items())
    }
    verdict = _verdict(gains, seeds=len(differences.repaired))
    words = {name: in_words(gain) for name, gain in gains.items()}
    sentence = SENTENCES[verdict].format(target=target, **{"others": "cannot be seen, as none reports"} | words)
    if len(differences.repaired) < 2:
        sentence += " One seed cannot answer it: ask for several (--seeds)."
    return Answer(
        verdict, sentence, gains["repaired"], gains["concept"], gains.get("others"), gains["said_target"]
    )  # fmt: skip


def _verdict(gains: Mapping[str, Gain], seeds: int) -> Verdict:
    def sure(p: float) -> bool:
        return p < LEVEL

    others, concept = gains.get("others"), gains["concept"]
    if seeds < 2:
        return "cannot tell"
    if not sure(gains["repaired"].above):
        return "no repair"
    if others is not None and sure(others.above) and not sure(others.within):
        return "class"
    if others is not None and sure(concept.above) and not sure(concept.within) and sure(others.within):
        return "concept"
    if sure(concept.within) and sure(gains["said_target"].above):
        return "says the target more"
    return "cannot tell"


def in_words(gain: Gain) -> str:
    """A gain in points, with its interval and what it is the mean over."""
    low, value, high = (f"{100 * v:+.1f}".replace("-", "−") for v in (gain.low, gain.value, gain.high))
    return f"{value} points ({low} to {high}; {gain.images:,} images, {gain.seeds} seed{'s' * (gain.seeds > 1)})"
