"""The accuracy on images that are mixed as the training images are."""

import numpy as np
from demo import split

from embedx.probes.plain import Plain

data = split("tiny:narrow")
head = Plain(C=10).fit(data.train.X, data.train.y)
correct = head.predict(data.test.X) == data.test.y
shares = np.bincount(data.train.groups) / len(data.train.groups)
print(f"accuracy {100 * sum(share * correct[data.test.groups == g].mean() for g, share in enumerate(shares)):.1f} %")
