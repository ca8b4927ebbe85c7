"""Intervals, tests, nulls, ranks and corrections: one implementation of each, with its source.

One p-value is counted elsewhere: that of correlations between models, while random orders are drawn one by one
(`spuriosity.measures.across_models`).

Only numpy and scipy are imported, nothing of ours, so that each can be read and checked by itself.

    intervals     one proportion, means of proportions, percentiles of draws
    clusters      the same of rows that come in clusters
    linearised    what clusters add to a sum over rows, its error, degrees of freedom
    strata        sums over strata, such as a gap, of rows and of clusters
    minima        the smallest of several proportions
    paired_minima  the difference of two such minima on the same rows, and of the best of several heads
    moment_inequalities  whether several means can all be 0 or more
    planning      test sets of other sizes or another truth, drawn: power, and rows that would decide
    differences   of figures of different rows, and of the same rows before and after
    resampling    bootstrap samples, stratified
    means         of draws: over seeds, over images and seeds
    nulls         what a random order of the rows would show
    ranks         AUROC, Mann and Whitney's test, two scores of the same rows
    retrieval     how many rows that are sought stand at the top of an order: precision at k, lift
    correlations  Pearson's and Spearman's
    across_datasets  mean ranks of methods over datasets, Friedman's test, every pair by Wilcoxon's
    corrections   of several p-values
    agreement     of raters
"""

from embedx.statistics.agreement import fleiss_kappa
from embedx.statistics.clusters import Sample, effective_rows, paired_rows, rows_of_groups
from embedx.statistics.corrections import benjamini_hochberg, holm
from embedx.statistics.correlations import (
    Correlation,
    mean_off_diagonal,
    mean_spearman,
    pearson,
    rank_correlations,
    row_correlations,
    spearman,
    spearman_brown,
    spearman_by_class,
    spearman_p,
    spearman_weights,
)
from embedx.statistics.differences import difference, paired_difference
from embedx.statistics.intervals import (
    Interval,
    effective_proportion,
    half_width,
    mean_share,
    percentile,
    percentile_limits,
    proportion,
    sum_of_strata,
    wilson,
)
from embedx.statistics.linearised import Error, codes_of
from embedx.statistics.means import CrossedMean, mean_of_draws
from embedx.statistics.minima import minimum
from embedx.statistics.nulls import (
    Against,
    against,
    exchanged_within,
    normal_p,
    p_from_draws,
    random_gap_limits,
    random_gaps,
    random_ranking,
    shuffled_within,
)
from embedx.statistics.paired_minima import Pairs, best_of
from embedx.statistics.planning import Truth
from embedx.statistics.ranks import auroc, auroc_difference, auroc_interval, mann_whitney
from embedx.statistics.resampling import Stratum, resampled_sums, stratified_draws
from embedx.statistics.retrieval import found_at, lift, precision_ratios, random_p, random_precision
from embedx.statistics.strata import correlation, end_of_clusters, stratified_sum

__all__ = [
    "Against", "Correlation", "CrossedMean", "Error", "Interval", "Pairs", "Sample", "Stratum", "Truth",
    "against", "auroc", "auroc_difference", "auroc_interval", "benjamini_hochberg", "best_of", "codes_of",
    "correlation", "difference", "effective_proportion", "effective_rows", "end_of_clusters", "exchanged_within",
    "fleiss_kappa", "found_at", "half_width", "holm", "lift", "mann_whitney", "mean_of_draws", "mean_off_diagonal",
    "mean_share", "mean_spearman", "minimum", "normal_p", "p_from_draws", "paired_difference",
    "paired_rows", "pearson", "percentile", "percentile_limits", "precision_ratios", "proportion",
    "random_gap_limits", "random_gaps", "random_p", "random_precision", "random_ranking", "rank_correlations",
    "resampled_sums", "row_correlations", "rows_of_groups", "shuffled_within", "spearman", "spearman_brown",
    "spearman_by_class", "spearman_p", "spearman_weights", "stratified_draws", "stratified_sum", "sum_of_strata",
    "wilson",
]  # fmt: skip
