"""Benchmarks: what is measured and how, one module each; results with their conditions in results/."""
