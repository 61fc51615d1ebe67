"""Benchmarks behind the numbers in docs/performance.md."""
