"""One run: the order of its phases, its directory, lock, heartbeats, resuming and progress."""
