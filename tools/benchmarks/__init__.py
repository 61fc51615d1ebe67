"""Benchmarks behind the figures in docs/performance.md."""
