"""Which calibration of the time model stands for a node type."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dpplan.errors import BadInput, Fault
from dpplan.profiles.calibration import Calibration
from dpplan.profiles.library import read_profile, shipped_root
from dpplan.queueing import Constants

__all__ = ["choose_calibration"]


def choose_calibration(
    hardware_name: str, wanted: str = "auto"
) -> tuple[Constants, Mapping[str, float], Calibration | None]:
    """Constants of the time model for a node type, and the calibration they are from.

    Parameters
    ----------
    hardware_name : str
        Name of the node type, as its profile gives it.
    wanted : str
        "auto": the calibration whose `hardware` lists the node type, in ./calibrations, else among
        the shipped ones, else the assumed constants; "none": the assumed constants; anything
        else: name or path of a calibration, whatever it was measured on.

    Returns
    -------
    (Constants, mapping, Calibration or None)
        The constants; model -> stored KV in bytes/token where it differs from the model's
        profile; the calibration, None where the constants are assumed.

    Raises
    ------
    BadInput
        If there is no such calibration, its file is faulty, or several of a folder list the node
        type and none has its name.

    Examples
    --------
    >>> constants, stored_kv, calibration = choose_calibration("h800")
    >>> calibration.hardware, choose_calibration("h20")[2]
    (['h800'], None)
    >>> choose_calibration("h800", "none")[0] == Constants()
    True
    """
    if wanted == "none":
        return Constants(), {}, None
    if wanted == "auto":
        found = _measured_on(hardware_name)
        if found is None:
            return Constants(), {}, None
    else:
        profile = read_profile("calibrations", wanted)
        assert isinstance(profile, Calibration)
        found = profile
    try:
        constants = Constants.of(found)
    except ValueError as error:
        raise BadInput(Fault(f"calibration {found.name}: constants", str(error))) from None
    return constants, found.stored_kv_bytes_per_token, found


def _measured_on(hardware_name: str) -> Calibration | None:
    """The calibration that lists a node type; one of its name goes before others."""
    for folder in (Path("calibrations"), shipped_root() / "calibrations"):
        listed: dict[str, Calibration] = {}
        for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
            profile = read_profile("calibrations", str(path))
            assert isinstance(profile, Calibration)
            if hardware_name in profile.hardware:
                listed[path.name] = profile
        same = [profile for profile in listed.values() if profile.name == hardware_name]
        if len(same or listed) > 1:
            needed = "one calibration for the node type is needed"
            cure = "name one with --calibration"
            where = f"hardware {hardware_name} in {folder}"
            raise BadInput(Fault(where, needed, ", ".join(listed), cure))
        if listed:
            return next(iter(same or listed.values()))
    return None
