"""The way in: run a command, turn every error into a message and an exit code."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from dpplan.cli import output
from dpplan.errors import BadInput, DpplanError, Infeasible

__all__ = ["main"]

EXIT_INTERNAL = 1
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141
"""What a shell reports of a program that SIGINT or SIGPIPE ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run dpplan.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; absent = those of the process.

    Returns
    -------
    int
        0 fine, 2 bad input, 3 infeasible, 4 a check found drift; 1 for an error of dpplan's own.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if argv is None:
        # A process of its own: a few MB of modules to load, then an answer and the end. Collecting
        # garbage between imports and looking for plugins of the schema library cost a tenth of it.
        gc.disable()
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        code = _run(arguments)
        output.flush()
    except KeyboardInterrupt:
        output.message("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        output.discard()
        return EXIT_PIPE_CLOSED
    except output.CannotWrite as error:
        output.discard()
        output.message(str(error))
        return EXIT_INTERNAL
    return code


def _run(arguments: list[str]) -> int:
    from dpplan.cli.app import command
    from dpplan.cli.arguments import check_command, usage_fault

    try:
        commands = getattr(command(), "commands", {})
        check_command(arguments, list(commands))
        if inner := getattr(commands.get(arguments[0]), "commands", None):
            arguments = arguments if len(arguments) > 1 else [*arguments, "--help"]
            check_command(arguments[1:], list(inner))
        code = command().main(arguments, prog_name="dpplan", standalone_mode=False)
    except BadInput as error:
        for fault in error.faults:
            output.message(str(fault))
        return error.exit_code
    except Infeasible as error:
        limits = f" (limits: {', '.join(error.limits)})" if error.limits else ""
        output.message(f"infeasible: {error.reason}{limits}")
        return error.exit_code
    except DpplanError as error:
        output.message(str(error))
        return error.exit_code
    except (KeyboardInterrupt, BrokenPipeError, output.CannotWrite):
        raise
    except Exception as error:
        if (usage := usage_fault(error)) is not None:
            output.message(str(usage))
            return BadInput.exit_code
        if type(error).__name__ == "Abort":  # older versions of typer raise this instead
            raise KeyboardInterrupt from None
        if os.environ.get("DPPLAN_TRACEBACK"):
            raise
        cure = "please report it; DPPLAN_TRACEBACK=1 shows where"
        output.message(f"internal error: {type(error).__name__}: {error}; {cure}")
        return EXIT_INTERNAL
    if code == EXIT_INTERRUPTED:  # typer catches Ctrl-C itself
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0
