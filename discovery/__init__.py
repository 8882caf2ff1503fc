"""Tuples and services."""
