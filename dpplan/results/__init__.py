"""Answers as frozen plain values, one module a question."""
