"""Run a command that never outlives a lease."""
