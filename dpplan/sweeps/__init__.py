"""One question asked many times."""
