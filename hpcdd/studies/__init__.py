"""Studies: the same problem on more and more ranks."""
