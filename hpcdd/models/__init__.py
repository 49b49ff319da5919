"""CNN families in 2D and 3D, the matching of their widths, and the aggregators. No MPI in here."""
