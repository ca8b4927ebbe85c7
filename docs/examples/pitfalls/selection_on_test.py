"""Heads chosen on the images that also report, and heads chosen on validation: 500 pairs of test sets of 80 images."""

import numpy as np
from demo import split, worst_group

from embedx.probes.group_balanced import GroupBalanced
from embedx.probes.plain import Plain
from embedx.probes.reweighted import Reweighted

data = split("tiny:narrow")
train, val, test = data.train, data.val, data.test
kinds = (Plain, Reweighted, GroupBalanced)
heads = [head for kind in kinds for head in kind(random_state=0).path(train.X, train.y, groups=train.groups)]
on_val = np.array([head.predict(val.X) == val.y for head in heads])
on_test = np.array([head.predict(test.X) == test.y for head in heads])

rng = np.random.default_rng(0)
reported, again = {"on test": [], "on validation": []}, {"on test": [], "on validation": []}
for _ in range(500):
    rows = np.array([rng.permutation(np.flatnonzero(test.groups == g))[:40] for g in np.unique(test.groups)])
    first, second = rows[:, :20].ravel(), rows[:, 20:].ravel()
    here = worst_group(on_test[:, first], test.groups[first])
    there = worst_group(on_test[:, second], test.groups[second])
    for rule, scores in (("on test", here), ("on validation", worst_group(on_val, val.groups))):
        best = scores.argmax()
        reported[rule].append(100 * here[best])
        again[rule].append(100 * there[best])

print(f"best of {len(heads)} heads, worst group %   as reported   on other test images   too high by, points")
for rule, values in reported.items():
    shown, true = np.mean(values), np.mean(again[rule])
    print(f"chosen {rule:<13} {shown:30.1f} {true:22.1f} {shown - true:21.1f}")
