"""Two heads compared by their worst group alone, on test sets of a few images a group: 2,000 of each size."""

import numpy as np
from demo import split, worst_group

from embedx.probes.group_balanced import GroupBalanced
from embedx.probes.reweighted import Reweighted

data = split("tiny:narrow")
train, test = data.train, data.test
kinds = (Reweighted(C=0.01), GroupBalanced(C=10, random_state=0))
heads = [head.fit(train.X, train.y, groups=train.groups) for head in kinds]
correct = np.array([head.predict(test.X) == test.y for head in heads])
better, worse = worst_group(correct, test.groups)
print(f"all images: reweighted {100 * better:.1f} %, group-balanced {100 * worse:.1f} %")

rng = np.random.default_rng(0)
groups = [np.flatnonzero(test.groups == g) for g in np.unique(test.groups)]
print("images a group   worst group of reweighted, %: mean, middle 95 %   group-balanced looks as good or better")
for n in (8, 20, 80):
    draws = []
    for _ in range(2000):
        rows = np.concatenate([rng.choice(g, n, replace=False) for g in groups])
        draws.append(worst_group(correct[:, rows], test.groups[rows]))
    first, second = 100 * np.array(draws).T
    low, high = np.percentile(first, [2.5, 97.5])
    likes = 100 * (second >= first).mean()
    print(f"{n:14}   {first.mean():29.1f}, {low:.1f} to {high:.1f} {likes:29.0f} % of the sets")
