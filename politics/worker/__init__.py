"""One leader works: `TokenWorker`, and the slots into which its work is cut."""
