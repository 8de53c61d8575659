"""Files that a command was told to write: all of a file, or nothing."""

from __future__ import annotations

import os
from pathlib import Path

from dpplan.errors import BadInput, Fault

__all__ = ["write_file"]


def write_file(target: Path, content: bytes, option: str, *, overwrite: bool) -> None:
    """Write beside the target, then put it in its place in one step.

    Parameters
    ----------
    target : Path
    content : bytes
    option : str
        The option that names the file, for messages.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    BadInput
        If the file exists and stays, or cannot be written.
    """
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(beside, "xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            if overwrite:
                os.replace(beside, target)
            else:
                os.link(beside, target)  # fails where a file has appeared meanwhile
        finally:
            beside.unlink(missing_ok=True)
    except FileExistsError:
        needed = "a file that does not exist is needed"
        where = f"{option} {target}"
        raise BadInput(Fault(where, needed, "an existing one", "add --force")) from None
    except OSError as error:
        got = (error.strerror or type(error).__name__).lower()
        needed, cure = "a writable path is needed", "check folder and permissions"
        raise BadInput(Fault(f"{option} {target}", needed, got, cure)) from None
