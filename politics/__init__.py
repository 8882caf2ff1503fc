"""Token workers: identical daemons, one of which works."""
