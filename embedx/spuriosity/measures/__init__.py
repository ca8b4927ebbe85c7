"""What is measured on a ranking: predictions by rank, several models at once, where tuning stops."""
