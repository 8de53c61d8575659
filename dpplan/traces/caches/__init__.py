"""What caches of every size and time to live make of a trace (H)."""
