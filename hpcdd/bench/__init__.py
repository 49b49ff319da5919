"""Benchmarks that anyone can run: hpcdd beside what else there is, in one job, interleaved."""
