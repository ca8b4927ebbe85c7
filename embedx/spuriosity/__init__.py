"""Spuriosity rankings on cached features: find what a classifier leans on, measure it, fix it, without group labels.

After Moayeri, Wang, Singla and Feizi, "Spuriosity Rankings: Sorting Data to Measure and Mitigate Biases", NeurIPS 2023.
One module per step, each with a function of the same name that does the whole step on an `analysis.Analysis`, in the
order of the data: discover, panels, annotate, rank, gap, tune, review; corrupt looks closer, site shows it all, masks
makes a dataset of it. What they are made of lies in the folders: `features`, `measures`, `records`, `annotations`,
`pages`, `publishing`. One backbone ranks, and the heads of any other are measured and tuned, since all caches of a
dataset are joined by id.
"""
