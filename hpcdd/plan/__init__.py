"""What a run will cost, before it is started: memory, messages and seconds of every rank. No MPI, no training."""
