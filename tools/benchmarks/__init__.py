"""Benchmarks that back the figures in docs/performance.md and docs/export.md."""
