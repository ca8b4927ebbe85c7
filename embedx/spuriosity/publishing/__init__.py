"""The result of an analysis as a dataset for others: its files, how they are read, and the cards beside them."""
