"""Progress of all ranks on root's terminal, without synchronising the training."""
