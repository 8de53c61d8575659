"""The command line: parses, calls, prints. Nothing else in dpplan prints.

Importing it costs no more than typer; a command loads what it needs when it runs.
"""

from __future__ import annotations

from dpplan.cli.main import main

__all__ = ["main"]
