"""Files that a command was told to write: all of a file, or nothing."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path

from dpplan.errors import BadInput, Fault

__all__ = ["plot_kind", "write_file"]

_PLOTS = ("png", "svg")


def write_file(
    target: Path, content: bytes | Iterable[bytes], option: str, *, overwrite: bool
) -> None:
    """Write beside the target, then put it in its place in one step.

    Parameters
    ----------
    target : Path
    content : bytes or iterable of bytes
        All of the file, or its parts one after another.
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
                stream.writelines((content,) if isinstance(content, bytes) else content)
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


def plot_kind(plot: str | None, faults: list[Fault]) -> str:
    """What the ending of `--plot`'s file asks for; matplotlib is an extra of the installation."""
    kind = Path(plot or "").suffix.lower().removeprefix(".")
    if plot is None:
        return kind
    if kind not in _PLOTS or "\0" in plot:
        needed = "a file name that ends in .png or .svg is needed"
        faults.append(Fault("--plot", needed, repr(plot[:60])))
    elif importlib.util.find_spec("matplotlib") is None:
        cure = "pip install dpplan[plot]"
        faults.append(Fault("--plot", "matplotlib is needed", "none installed", cure))
    return kind
