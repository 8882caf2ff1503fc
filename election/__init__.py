"""Leases and leader election."""
