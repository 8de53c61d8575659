"""`dpplan predict`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpplan.cli import output
from dpplan.cli.arguments import check_choice
from dpplan.cli.commands.optimize import FORMATS, write_document
from dpplan.errors import BadInput, Fault, Infeasible, did_you_mean

if TYPE_CHECKING:
    from dpplan.profiles.workload import TurnClass

__all__ = ["Prospect", "run_predict"]

_SCHEMA = "dpplan.predict/1"


@dataclass(frozen=True)
class Prospect:
    """What the options ask for."""

    hw: str | None
    workload: str | TurnClass
    model: str | None
    prefill_hw: str | None
    decode_hw: str | None
    nodes: int | None
    prefill_nodes: int | None
    decode_nodes: int | None
    agents: float | None
    agents_per_s: float | None
    capacity: bool
    system: str | None
    strategy: str | None
    layerwise: bool | None
    scheduler: str | None
    against: str | None
    slo: str | None
    calibration: str
    settings: tuple[str, ...]


def run_predict(prospect: Prospect, format: str) -> None:
    """Predict and print."""
    faults = check_choice("--format", format, FORMATS)
    limits = _limits(prospect.slo, faults)
    with output.quick_start():
        from dpplan.planner.predict import predict

        try:
            found = predict(
                prospect.hw,
                prospect.workload,
                model=prospect.model,
                prefill_hardware=prospect.prefill_hw,
                decode_hardware=prospect.decode_hw,
                nodes=prospect.nodes,
                prefill_nodes=prospect.prefill_nodes,
                decode_nodes=prospect.decode_nodes,
                agents=prospect.agents,
                agents_per_s=prospect.agents_per_s,
                capacity=prospect.capacity,
                system=prospect.system,
                strategy=prospect.strategy,
                layerwise=prospect.layerwise,
                scheduler=prospect.scheduler,
                against=prospect.against,
                ttft_limit_s=limits.get("ttft"),
                tpot_limit_s=limits.get("tpot"),
                calibration=prospect.calibration,
                settings=prospect.settings,
            )
        except BadInput as error:
            raise BadInput([*faults, *error.faults]) from None
        except Infeasible as error:
            if faults:
                raise BadInput(faults) from None
            if format == "json":
                reason = {"reason": error.reason, "limits": list(error.limits)}
                output.json_document({"schema": _SCHEMA, "infeasible": reason})
            raise
    if faults:
        raise BadInput(faults)
    if format == "json":
        output.json_document(found.to_dict())
    elif format == "csv":
        from dpplan.report.renderers.csv import to_csv

        rows = [
            (
                name,
                value,
                found.intervals[name].low if name in found.intervals else None,
                found.intervals[name].high if name in found.intervals else None,
            )
            for name, value in found.values.items()
        ]
        output.text(to_csv(("metric", "value", "low", "high"), rows))
    else:
        from dpplan.report.documents.predict import prediction_document

        write_document(prediction_document(found), format)
    if format in ("json", "csv"):
        for warning in found.warnings:
            output.message(f"warning: {warning}")


def _limits(text: str | None, faults: list[Fault]) -> dict[str, float]:
    """`ttft=4s,tpot=50ms` as seconds."""
    from dpplan.units import parse_quantity

    found: dict[str, float] = {}
    for part in [] if text is None else text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in ("ttft", "tpot"):
            cure = did_you_mean(name[:80], ("ttft", "tpot"))
            faults.append(Fault("--slo", "ttft=TIME,tpot=TIME is needed", repr(part[:40]), cure))
        elif name in found:
            faults.append(Fault("--slo", "each limit once is needed", f"{name} twice"))
        elif value == "unlimited":
            found[name] = math.inf
        else:
            try:
                found[name] = parse_quantity(value, "s")
            except ValueError as error:
                faults.append(Fault(f"--slo {name}", str(error)))
                continue
            if not 1e-9 <= found[name] <= 1e9:
                faults.append(Fault(f"--slo {name}", "a time above zero is needed", repr(value)))
                del found[name]
    return found
