"""The MPI library, the communicator and what the launcher says; the only package that imports mpi4py."""
