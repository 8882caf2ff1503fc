"""Attacks, each as a test: what a stranger sends, and what becomes of those whom he sends it to."""
