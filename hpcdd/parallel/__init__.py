"""Networks, layers and sums that span ranks; the only users of MPI between `comm` and the phases."""
