"""What is measured: the features that matter, scores, gaps, several models at once, tuning and where it stops."""
