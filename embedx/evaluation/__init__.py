"""Heads fitted on cached features, chosen on validation and reported on test: from the split to the verdict."""
