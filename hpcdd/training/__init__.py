"""Training of networks on one rank or several: steps, optimizers, random streams, the state between two steps."""
