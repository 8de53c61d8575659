"""Request traces: reading the formats in use, what caches make of them, workloads out of them."""

from __future__ import annotations
