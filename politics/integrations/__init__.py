"""Other schedulers and frameworks, each with one process of many that works."""
