"""Studies: matrices of runs in groups of ranks, and scaling studies on more and more ranks."""
