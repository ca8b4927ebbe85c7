"""Linear discriminant of equal groups: each class is the mean of its groups' means, however rare a group is."""

import numpy as np

from embedx.probes import ChosenBy, Fit, FitError, Labels, LinearHead, Need, Supervision


class MyHead(LinearHead):
    """W = M S^-1, b_c = -1/2 m_c S^-1 m_c, with M (k, d) the classes' means m_c.

    m_c is the mean of the means of the groups of class c. S is the covariance (d, d) within groups, shrunk:
    (1 - a) S + a tr(S) / d. There is nothing to iterate.

    shrinkage  a, above 0 and at most 1
    """

    needs = frozenset({Need.GROUPS})
    supervision = (Supervision(Labels.GROUPS),)
    chosen_by = ChosenBy.WORST_GROUP
    grid = tuple({"shrinkage": a} for a in (1.0, 0.5, 0.2, 0.05, 0.01))

    def __init__(self, shrinkage=0.5, standardize=True, random_state=None):
        super().__init__(standardize=standardize, random_state=random_state)
        self.shrinkage = shrinkage

    def _fits(self, data, variants):
        Z, groups = data.features.tensor.numpy().astype(np.float64), data.known_groups()
        codes = np.unique(groups)
        of_groups = np.stack([Z[groups == g].mean(0) for g in codes])
        labels = np.array([data.y[groups == g][0] for g in codes])
        means = np.stack([of_groups[labels == c].mean(0) for c in range(data.k)])
        within = Z - of_groups[np.searchsorted(codes, groups)]
        covariance = within.T @ within / len(Z)
        return [self._solved(means, covariance, v.shrinkage) for v in variants]

    def _solved(self, means, covariance, shrinkage):
        if not 0 < shrinkage <= 1:
            raise FitError(f"shrinkage must lie above 0 and be at most 1, found {shrinkage}")
        d = len(covariance)
        W = np.linalg.solve((1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / d * np.eye(d), means.T).T
        b = -(W * means).sum(1) / 2
        if len(means) == 2:  # one logit, of the second class
            W, b = W[1:] - W[:1], b[1:] - b[:1]
        return Fit(converged=True, coef=W, intercept=b)
