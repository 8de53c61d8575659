"""What an answer rests on: assumed numbers of the profiles, defaults, and modelling choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpplan.deployment import Limits, Side
from dpplan.profiles.calibration import Calibration
from dpplan.profiles.hardware import Hardware
from dpplan.profiles.library import Inputs
from dpplan.profiles.schema import Source
from dpplan.profiles.workload import TurnClass
from dpplan.units import DIMENSIONS, format_quantity

__all__ = ["assumptions", "source_of", "time_assumptions", "warnings"]

_ALWAYS = (
    "gpus",
    "gpu.bf16_flop_per_s",
    "gpu.fp8_flop_per_s",
    "gpu.fp4_flop_per_s",
    "gpu.hbm_bytes",
    "gpu.hbm_bytes_per_s",
    "compute_nic.count",
    "compute_nic.bytes_per_s",
    "storage_nic.count",
    "storage_nic.bytes_per_s",
    "dram.bytes_per_s",
    "dram.kv_buffer_bytes",
    "storage_backend.read_bytes_per_s",
    "storage_backend.write_bytes_per_s",
)
_FULL_ONLY = tuple(
    [
        f"efficiency.{name}"
        for name in ("gemm", "attention", "hbm", "storage_nic", "compute_nic", "dram")
    ]
    + [
        f"headroom.{name}"
        for name in (
            "gpu",
            "hbm",
            "storage_nic",
            "compute_nic",
            "dram",
            "kv_buffer",
            "storage_backend",
        )
    ]
)
_MODEL = (
    "kv_dtype",
    "index_dtype",
    "state_dtype",
    "weight_dtype",
    "expert_dtype",
    "compute_dtype",
    "attention_dtype",
)
_TURN = (
    "turns_per_session",
    "context_tokens",
    "append_tokens",
    "output_tokens",
    "session_tokens",
    "dram_hit_fraction",
)


def source_of(path: str, sources: Mapping[str, Source]) -> Source | None:
    """Source of a dotted path: its own, that of its longest prefix, or `default`.

    >>> source_of("gpu.hbm_bytes", {"gpu": Source(kind="datasheet", reference="sheet")}).kind
    'datasheet'
    """
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        found = sources.get(".".join(parts[:length]))
        if found is not None:
            return found
    return sources.get("default")


def _value(profile: Any, path: str) -> Any:
    for part in path.split("."):
        profile = getattr(profile, part, None)
    return profile


def assumptions(inputs: Inputs, limits: Limits, *, of_bounds: bool = True) -> tuple[str, ...]:
    """Everything assumed that this plan rests on, one line each.

    Numbers whose source is of kind "assumed" or that have none, defaults of the planner, and
    (`of_bounds`) choices of the planner's model; `--set` values are the user's own and not listed.
    """
    full = limits.counting == "full"
    lines: list[str] = []
    sides = {"prefill": limits.prefill, "decode": limits.decode}
    for side in sides.values():
        lines += _hardware(side.hardware, inputs, full)
        lines += [
            f"{side.hardware.name} has no {wanted} rate: {kernel} counted at {found}"
            for kernel, wanted, found in side.precisions
        ]
    lines += _listed(
        f"model {inputs.model.name}", inputs.model, _MODEL, inputs.model.sources, inputs
    )
    for item in inputs.classes:
        name = f"workload {item.turns.name}"
        lines += _listed(name, item.turns, _TURN, item.turns.sources, inputs)
    slo = inputs.workload.slo or inputs.classes[0].turns.slo
    if slo is None:
        lines.append("TPOT limit 50 ms (default of the planner; the workload names none)")
    lines += [_layout(name, side) for name, side in sides.items()]
    if of_bounds:
        lines.append(
            "the mean turn of each class stands for all its turns; bounds, not predictions"
        )
        lines.append(
            "layerwise prefill: loads overlap compute, one layer's KV in prefill HBM at a time"
        )
    lines += [
        f"workload {c.name}: {c.dram_hit_fraction:.4g} of the hit KV lies in DRAM of the very node "
        "that prefills; what fills that pool is not counted"
        for c in limits.classes
        if c.dram_hit_fraction
    ]
    if full and of_bounds:
        lines.append("collectives, write-back and hand-off share NICs and DRAM with KV loads")
    # Two sides of one node type rest on the same numbers.
    return tuple(dict.fromkeys(lines))


def _hardware(hardware: Hardware, inputs: Inputs, full: bool) -> list[str]:
    paths = _ALWAYS + (_FULL_ONLY if full else ())
    return _listed(f"hardware {hardware.name}", hardware, paths, hardware.sources, inputs)


def _listed(
    name: str, profile: Any, paths: tuple[str, ...], sources: Mapping[str, Source], inputs: Inputs
) -> list[str]:
    own = {text.partition("=")[0].strip() for text in inputs.overrides}
    lines = []
    for path in paths:
        value = _value(profile, path)
        if value is None or any(key == path or key.endswith(f".{path}") for key in own):
            continue
        source = source_of(path, sources)
        is_default = path.rsplit(".", 1)[-1] not in _given(profile, path)
        if is_default:
            continue  # absent = 1 or 0: no number was put in
        if source is None:
            lines.append(f"{name}: {path} = {_show(path, value)} (no source given)")
        elif source.kind == "assumed":
            lines.append(f"{name}: {path} = {_show(path, value)} (assumed: {source.reference})")
    return lines


def _given(profile: Any, path: str) -> set[str]:
    parts = path.split(".")
    for part in parts[:-1]:
        profile = getattr(profile, part)
    return set(profile.model_fields_set)


def _show(path: str, value: Any) -> str:
    for dimension in sorted(DIMENSIONS, key=len, reverse=True):
        if path.endswith(f"_{dimension}") or path.endswith(f".{dimension}"):
            return format_quantity(value, dimension)
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _layout(name: str, side: Side) -> str:
    engine = side.engine
    given = any(
        size is not None for size in vars(getattr(side.hardware.parallelism, name)).values()
    )
    how = "as the profile gives it" if given else "derived: the fastest of those that fit"
    nodes = f"{engine.nodes} node{'s' if engine.nodes > 1 else ''}"
    sizes = f"TP {engine.tp}, DP {engine.dp}, EP {engine.ep}"
    gpus = f"{engine.gpus} GPU{'s' if engine.gpus > 1 else ''}"
    return f"{name} engine of {gpus} on {nodes}: {sizes} ({how})"


def warnings(inputs: Inputs, limits: Limits) -> tuple[str, ...]:
    """What looks wrong in the inputs but doesn't stop a plan."""
    found = []
    for item in inputs.classes:
        turns = item.turns
        if turns.context_tokens > turns.session_tokens:
            found.append(
                f"workload {turns.name}: context_tokens {turns.context_tokens:,.10g} is beyond "
                f"session_tokens {turns.session_tokens:,.10g}"
            )
    for c in limits.classes:
        least = max(min(c.read_s), c.prefill_s)
        if least > c.ttft_s:
            found.append(
                f"workload {c.name}: TTFT limit {format_quantity(c.ttft_s, 's')} is out of reach: "
                f"reading and prefilling a lone turn take {format_quantity(least, 's')}"
            )
    for side in (limits.prefill, limits.decode):
        if side.hardware.dram.kv_buffer_bytes > side.hardware.dram.bytes:
            found.append(
                f"hardware {side.hardware.name}: kv_buffer_bytes is larger than dram.bytes"
            )
    return tuple(dict.fromkeys(found))


def time_assumptions(
    inputs: Inputs, calibration: Calibration | None, *, of_job: bool
) -> tuple[str, ...]:
    """What a prediction in time assumes beyond its profiles, and the laws it is made of."""
    from dpplan.demand.sessions import dispersion, first_prompt_tokens  # a plan needs no queues

    name, found = inputs.model.name, []
    if calibration is None:
        found.append(
            "time model: all constants are assumed, none is measured on this hardware (measure "
            "them with `dpplan calibrate`, or name another's with --calibration)"
        )
    else:
        if inputs.prefill_hardware.name not in calibration.hardware:
            on = ", ".join(calibration.hardware)
            found.append(f"time model: constants of {on}, assumed to hold here")
        if name in calibration.stored_kv_bytes_per_token:
            size = calibration.stored_kv_bytes_per_token[name]
            found.append(f"{name}: {size:,.0f} bytes of KV a token in storage (calibration)")
    for item in inputs.classes:
        turns, spread = item.turns, dispersion(item.turns)
        first = first_prompt_tokens(turns)
        differ = (
            f"sessions differ in length ({_law(turns, spread)})"
            if spread > 1
            else "sessions are alike"
        )
        found.append(
            f"workload {turns.name}: {differ}; a first prompt of {first:,.0f} tokens finds nothing "
            "cached, then contexts grow evenly"
        )
    found.append(
        "all agents start together"
        if of_job
        else "sessions arrive at random (Poisson), and the state is steady"
    )
    laws = "Q-offline" if of_job else "Q-online"
    found.append(
        f"laws: Q-prefill, Q-sessions, Q-stations, Q-wait, Q-decode and {laws} (docs/method.md)"
    )
    return tuple(found)


def _law(turns: TurnClass, spread: float) -> str:
    from dpplan.demand.sessions import measured_lengths

    if measured_lengths(turns) is None:
        return f"gamma, mean(T) x mean(1/T) = {spread:.2f} from the means"
    count = turns.distinct_sessions
    of = f" of {count:,.10g} sessions" if count else ""
    return f"as measured: quantiles{of}, mean(T) x mean(1/T) = {spread:.2f}"
