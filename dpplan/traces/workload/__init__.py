"""Workload profiles out of traces."""
