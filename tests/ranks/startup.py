"""A job that says of each rank which of some libraries it has imported: ``python startup.py WORDS...``."""

import sys

from hpcdd.cli import main

WATCHED = ("PIL", "jinja2", "matplotlib", "multiprocessing.pool", "nibabel", "rich", "sympy", "torch", "torch._dynamo")

if __name__ == "__main__":
    code = main.main(sys.argv[1:])
    from mpi4py import MPI

    print(f"rank {MPI.COMM_WORLD.rank}:", *[name for name in WATCHED if name in sys.modules], flush=True)
    sys.exit(code)
