"""Benchmarks that anyone can run: hpcdd compared with its alternatives, in one job, interleaved."""
