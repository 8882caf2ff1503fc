"""Benchmarks: each figure is a ratio against a peer or a limit that is measured in the same run."""
