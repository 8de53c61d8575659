"""`dpplan calibrate`: measured results to the constants of the time model."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from dpplan.cli import output
from dpplan.cli.arguments import check_choice
from dpplan.errors import BadInput, Fault, did_you_mean

if TYPE_CHECKING:
    from dpplan.validation.calibrate import Calibrated
    from dpplan.validation.measurements import Measurement

__all__ = ["FORMATS", "calibrate", "run_calibrate"]

FORMATS = ("table", "json", "markdown")
_SCHEMA: Final = "dpplan.calibrate/1"
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.+-]{0,79}")
_REFERENCE: Final = "own measurements"


def calibrate(
    measurements: Annotated[
        str,
        typer.Argument(metavar="MEASUREMENTS.csv", help="Measured results, one number a row."),
    ],
    out: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write the calibration profile here."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name of the profile; absent = the file's."),
    ] = None,
    reference: Annotated[
        str,
        typer.Option("--reference", metavar="TEXT", help="Where the measurements come from."),
    ] = _REFERENCE,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="Where they are published.")
    ] = None,
    stored_kv: Annotated[
        list[str] | None,
        typer.Option(
            "--stored-kv",
            metavar="MODEL=SIZE",
            help="What a cached token takes in storage where the model's profile is wrong about "
            "it, e.g. deepseek-v3.2=70272B; repeatable.",
        ),
    ] = None,
    stored_kv_reason: Annotated[
        str, typer.Option("--stored-kv-reason", metavar="TEXT", help="Why; needed with it.")
    ] = "",
    leave_one_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-out/--no-leave-one-out",
            help="Fit once more without each model, and predict its rows.",
        ),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    format: Annotated[
        str,
        typer.Option(
            "--format", metavar="table|json|markdown", help="How the answer is written to stdout."
        ),
    ] = "table",
) -> None:
    """Constants of the time model from measured results, and how well they are known."""
    asked = Asked(
        measurements,
        out,
        name,
        reference,
        url,
        tuple(stored_kv or ()),
        stored_kv_reason,
        leave_one_out,
        force,
    )
    run_calibrate(asked, format)


@dataclass(frozen=True)
class Asked:
    """What the options ask for."""

    measurements: str
    out: str | None
    name: str | None
    reference: str
    url: str | None
    stored_kv: tuple[str, ...]
    stored_kv_reason: str
    leave_one_out: bool
    force: bool

    @property
    def chosen_name(self) -> str:
        """What the profile is called: as asked, as its file, or as the data."""
        return self.name or Path(self.out or self.measurements).stem

    @property
    def file(self) -> str:
        """The data's file as another reader may find it."""
        path = Path(self.measurements)
        return path.name if path.is_absolute() else path.as_posix()

    def command(self) -> list[str]:
        """Lines of the command that makes the profile again."""
        options = [["--name", self.chosen_name]]
        options += [["--stored-kv", text] for text in self.stored_kv]
        options += [["--stored-kv-reason", self.stored_kv_reason]] if self.stored_kv_reason else []
        options += [["--reference", self.reference]] if self.reference != _REFERENCE else []
        options += [["--url", self.url]] if self.url else []
        options += [] if self.leave_one_out else [["--no-leave-one-out"]]
        lines = [f"dpplan calibrate {shlex.quote(self.file)}"]
        lines += [f"    {shlex.join(words)}" for words in options]
        return [f"{line} \\" for line in lines] + ["    --force -o THIS_FILE"]


def run_calibrate(asked: Asked, format: str) -> None:
    """Fit, print, and write the profile."""
    faults = check_choice("--format", format, FORMATS) + _faults(asked)
    sizes = _sizes(asked, faults)
    try:
        with output.quick_start():
            from dpplan.validation.measurements import fingerprint, read_measurements
        path = Path(asked.measurements)
        sha256 = fingerprint(path)
        rows = read_measurements(path)
    except BadInput as error:
        raise BadInput([*faults, *error.faults]) from None
    known = _models(rows) if sizes else []
    for model in sizes:
        if model not in known:
            cure = did_you_mean(model, known)
            needed = "a model of the measurements is needed"
            faults.append(Fault(f"--stored-kv {model}", needed, repr(model[:60]), cure))
    if faults:
        raise BadInput(faults)
    with _progress() as tell:
        from dpplan.validation.calibrate import calibrate as fit

        found = fit(rows, sizes, leave_one_model_out=asked.leave_one_out, tell=tell)
    written = _profile(asked, found, sha256)
    _print(asked, found, format)
    if asked.out is not None:
        from dpplan.cli.files import write_file

        write_file(Path(asked.out), written.encode(), "-o", overwrite=asked.force)
        output.message(f"wrote {asked.out}")


def _models(rows: tuple[Measurement, ...]) -> list[str]:
    from dpplan.validation.calibrate import own_name

    return sorted({own_name("models", name) for name in {row.model for row in rows}})


def _print(asked: Asked, found: Calibrated, format: str) -> None:
    if format == "json":
        head = {"schema": _SCHEMA, "name": asked.chosen_name, "measurements": asked.file}
        output.json_document(head | found.to_dict() | {"written": asked.out})
        for warning in found.warnings:
            output.message(f"warning: {warning}")
        return
    from dpplan.cli.commands.optimize import write_document
    from dpplan.report.documents.calibrate import calibration_document

    write_document(calibration_document(found, asked.chosen_name), format)


def _faults(asked: Asked) -> list[Fault]:
    faults = []
    if not asked.measurements or "\0" in asked.measurements:
        got = repr(asked.measurements[:60])
        faults.append(Fault("MEASUREMENTS.csv", "a path is needed", got))
    if asked.out is not None:
        if not asked.out or "\0" in asked.out:
            faults.append(Fault("-o", "a path is needed", repr(asked.out[:60])))
        elif not Path(asked.out).parent.is_dir() or Path(asked.out).is_dir():
            needed = "a file in an existing folder is needed"
            got = "a folder" if Path(asked.out).is_dir() else "no such folder"
            faults.append(Fault(f"-o {asked.out}", needed, got))
        elif not asked.force and os.path.lexists(asked.out):
            needed = "a file that does not exist is needed"
            faults.append(Fault(f"-o {asked.out}", needed, "an existing one", "add --force"))
    if not _NAME.fullmatch(asked.chosen_name):
        needed = "a name of letters, digits and . _ + - is needed"
        got = repr(asked.chosen_name[:60])
        faults.append(Fault("--name", needed, got, "give one with --name"))
    for option, text in (
        ("--reference", asked.reference),
        ("--url", asked.url or "-"),
        ("--stored-kv-reason", asked.stored_kv_reason or "-"),
    ):
        if not text.strip() or not text.isprintable() or len(text) > 1000:
            needed = "one line of at most 1000 characters is needed"
            faults.append(Fault(option, needed, repr(text[:40])))
    if asked.stored_kv and not asked.stored_kv_reason:
        needed = "the reason is needed where --stored-kv is given"
        faults.append(Fault("--stored-kv-reason", needed, "none"))
    if asked.stored_kv_reason and not asked.stored_kv:
        faults.append(Fault("--stored-kv", "a model is needed where a reason is given", "none"))
    return faults


def _sizes(asked: Asked, faults: list[Fault]) -> dict[str, float]:
    from dpplan.units import UnitError, parse_quantity

    sizes: dict[str, float] = {}
    for text in asked.stored_kv:
        model, equals, size = text.partition("=")
        if not equals or not model or model in sizes:
            needed = "MODEL=SIZE, each model once, is needed"
            cure = "for example --stored-kv deepseek-v3.2=70272B"
            faults.append(Fault("--stored-kv", needed, repr(text[:60]), cure))
            continue
        try:
            sizes[model] = parse_quantity(size, "bytes")
        except UnitError as error:
            faults.append(Fault(f"--stored-kv {model[:60]}", str(error), repr(size[:40])))
            continue
        if not 1 <= sizes[model] <= 1e12:
            needed = "a size of a token, 1 B to 1 TB, is needed"
            faults.append(Fault(f"--stored-kv {model[:60]}", needed, repr(size[:40])))
    return sizes


def _profile(asked: Asked, found: Calibrated, sha256: str) -> str:
    """Text of the profile, read back before anybody sees it."""
    from dpplan import __version__
    from dpplan.profiles.calibration import Calibration
    from dpplan.profiles.schema import validate_document
    from dpplan.profiles.yaml_reader import parse_yaml
    from dpplan.profiles.yaml_writer import profile_text
    from dpplan.validation.calibrate import own_name

    rows = found.measurements
    used = {rows[i].hardware for i in found.comparison.index}
    hardware = sorted({own_name("hardware", name) for name in used})
    data = {"file": asked.file, "sha256": sha256, "rows": len(rows), "reference": asked.reference}
    described = (
        f"Time model on {', '.join(hardware)}, fitted to {len(found.comparison.index)} rows of "
        f"{asked.file} by dpplan {__version__}; its first lines are the command that makes it again"
    )
    profile = {
        "name": asked.chosen_name,
        "description": described,
        "hardware": hardware,
        "data": data | ({"url": asked.url} if asked.url else {}),
        **found.to_profile(asked.stored_kv_reason),
    }
    made = ["Made by dpplan; the same data and this command make it again:", *asked.command()]
    text = profile_text(profile, made)
    validate_document(parse_yaml(text, f"profile {asked.chosen_name}"), Calibration)
    return text


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line on stderr that tells what is being done, where somebody watches."""
    stream = sys.stderr
    if stream is None or not stream.isatty() or os.environ.get("TERM", "") == "dumb":
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("reading") as status:
        yield lambda text: status.update(escape(text))
