"""What a trace holds: lengths, arrivals, sessions."""
