"""hpcdd: image classifiers trained by domain decomposition over MPI.

The method is that of A. Klawonn, M. Lanser and J. Weber, "Model Parallel Training and Transfer Learning
for Convolutional Neural Networks by Domain Decomposition", arXiv 2408.14442. Importing this package
imports neither torch nor MPI.
"""

__version__ = "0.1.0"
