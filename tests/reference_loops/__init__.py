"""Heads as their papers define them: plain loops in float64, slow, that share no code with those of the project.

One module for each head, named as it, with one function `fit(X, y, ...)`: (W, b) on the features as they are given, of
two classes the second less the first, or what the head predicts.
"""
