"""Peers: how the members of a group hear of each other, and what they make of it."""
