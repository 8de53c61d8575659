"""Optima of arrays: closed form, linear programme, and the certificate both must pass."""
