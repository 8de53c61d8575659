"""Traces out of workload profiles (H-synthesis)."""
