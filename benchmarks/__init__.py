"""Benchmarks: ratios against what a user would otherwise take, measured side by side in one run."""
