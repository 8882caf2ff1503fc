"""Whether a set-up is sound: what is measured, and what follows from it."""
