"""The files that a run leaves for others to read, and the metrics in them."""
