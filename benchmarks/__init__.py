"""Measures pacball beside its peers: ``python -m benchmarks``."""
