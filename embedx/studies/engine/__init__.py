"""What runs a study: its file becomes cells, cells become runs, runs an answer, a page and a record."""
