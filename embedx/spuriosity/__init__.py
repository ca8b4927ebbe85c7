"""Spuriosity rankings on cached features: find what a classifier leans on, measure it, fix it, without group labels.

After Moayeri, Wang, Singla and Feizi, "Spuriosity Rankings: Sorting Data to Measure and Mitigate Biases", NeurIPS 2023.
One file per step, in the order of the data: discover, annotations, rank, gap, tune, review. One backbone ranks, and the
heads of any other are measured and tuned, since all caches of a dataset are joined by id.
"""
