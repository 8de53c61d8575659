"""Predictions held against measurements, and against yesterday's."""
