"""Trace files opened, read in bounded memory and put in order of time."""
