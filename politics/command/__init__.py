"""A command that runs under a lease, and does not outlive it."""
