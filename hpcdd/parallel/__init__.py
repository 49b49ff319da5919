"""Networks, layers and sums that span ranks; the only users of MPI between :mod:`hpcdd.mpi` and the phases."""
