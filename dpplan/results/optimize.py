"""Frozen answers: what a plan says, as plain values, mappings and DataFrames. No solver here."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpplan.frozen import freeze

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "STRATEGIES",
    "Advice",
    "BottleneckFree",
    "Demand",
    "EngineSummary",
    "NextLimit",
    "NodeOption",
    "Plan",
    "StrategyResult",
]

STRATEGIES = ("prefill-only", "dual-path", "oracle")


@dataclass(frozen=True)
class Demand:
    """What the mean turn asks for."""

    kv_bytes_per_token: float
    hit_kv_bytes_per_turn: float
    prefill_flop_per_turn: float
    hit_rate_fraction: float
    cache_compute_ratio_gb_per_pflop: float | None
    fresh_kv_bytes_per_turn: float
    generated_kv_bytes_per_turn: float
    write_back_bytes_per_turn: float
    prefill_gpu_s_per_turn: float
    decode_gpu_s_per_turn: float
    load_or_recompute_bytes_per_s_per_gpu: float | None
    """Storage bandwidth per prefill GPU above which loading the history beats recomputing it."""
    dram_hit_fraction: float
    """Share of the hit KV bytes that DRAM of the prefill nodes serves."""


@dataclass(frozen=True)
class EngineSummary:
    """How one side runs the model."""

    hardware: str
    nodes_per_engine: int
    gpus_per_engine: int
    tp: int
    dp: int
    ep: int
    weight_bytes_per_gpu: float
    hbm_left_bytes_per_gpu: float | None
    """None = HBM is unlimited."""
    engines: float
    """Engines that the side's nodes run."""
    idle_nodes: int
    """Nodes left over, which fill no engine."""
    batch_per_engine: float | None = None
    """Decode: largest batch; None on the prefill side and where nothing limits it."""
    batch_limit: str | None = None
    """Decode: what limits the batch, "hbm" or "tpot"."""
    step_limit: str | None = None
    """Decode: what a step waits for, "memory" or "compute"; a larger batch helps the first only."""
    step_s: float | None = None
    """Decode: step time at that batch."""
    tokens_per_s: float | None = None
    """Decode: tokens per second and engine."""


@dataclass(frozen=True)
class NextLimit:
    """What would bind next if one bottleneck were lifted."""

    lifted: str
    turns_per_s: float | None
    """Bound with it unlimited; None = nothing binds any more."""
    gain_fraction: float | None
    bottlenecks: tuple[str, ...]
    enough_factor: float | None
    """Factor on the lifted capacity that already reaches that bound."""


@dataclass(frozen=True)
class Advice:
    """A rearrangement of the same nodes that raises the dual-path bound."""

    text: str
    option: str
    """Command-line option that makes it."""
    turns_per_s: float
    gain_fraction: float


@dataclass(frozen=True)
class StrategyResult:
    """One strategy's bound at the plan's P:D; rates are None where nothing binds."""

    name: str
    decode_read_fraction: float | None
    """Of the hit KV that storage delivers."""
    decode_read_fraction_min: float | None
    decode_read_fraction_max: float | None
    turns_per_s: float | None
    sessions_per_s: float | None
    hit_kv_bytes_per_s: float | None
    prompt_tokens_per_s: float | None
    output_tokens_per_s: float | None
    sessions_between_turns: float | None
    """Sessions in a tool gap at that throughput (Little's law); None where no gap is given."""
    bottlenecks: tuple[str, ...]
    utilisation: dict[str, float]
    shadow_prices: dict[str, float]
    shadow_prices_if_more: dict[str, float]
    """Relative gain per relative gain of the resource; differs from a loss's only at a kink."""
    shadow_prices_if_less: dict[str, float]
    next_limits: tuple[NextLimit, ...]
    certificate: dict[str, float] | None

    def __post_init__(self) -> None:
        """Freeze the mappings, too."""
        freeze(self, "utilisation", "shadow_prices")
        freeze(self, "shadow_prices_if_more", "shadow_prices_if_less")


@dataclass(frozen=True)
class BottleneckFree:
    """S1's range and where the plan stands in it."""

    p_over_d_min: float | None
    p_over_d_max: float | None
    p_over_d: float
    holds: bool
    reason: str
    terms: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class NodeOption:
    """One P:D of the node table."""

    prefill_nodes: int
    decode_nodes: int
    idle_nodes: int
    turns_per_s: dict[str, float | None]
    """By strategy."""
    bottlenecks: tuple[str, ...]
    """Of dual-path."""
    decode_read_fraction: float
    chosen: bool
    best_for: tuple[str, ...]
    """Strategies for which no other P:D is better."""


@dataclass(frozen=True)
class Plan:
    """A capacity plan: everything `dpplan optimize` says."""

    hardware: str
    prefill_hardware: str
    decode_hardware: str
    model: str
    workload: str
    prefill_nodes: int
    decode_nodes: int
    counting: str
    unlimited: tuple[str, ...]
    settings: tuple[str, ...]
    demand: Demand
    prefill_engine: EngineSummary
    decode_engine: EngineSummary
    strategies: dict[str, StrategyResult]
    speedup: float | None
    """Dual-path over prefill-only; None where either is unbounded."""
    speedup_own_best: float | None
    """The same with each at the P:D of these nodes that is best for itself."""
    bottleneck_free: BottleneckFree
    node_options: tuple[NodeOption, ...]
    """All P:D of the plan's number of nodes."""
    assumptions: tuple[str, ...]
    advice: tuple[Advice, ...] = ()
    """Better uses of the same nodes."""
    warnings: tuple[str, ...] = ()
    cost_usd_per_h: float | None = None
    power_w: float | None = None
    """Largest power the nodes draw; None where a profile names none."""

    def __post_init__(self) -> None:
        """Freeze the mapping, too."""
        freeze(self, "strategies")

    def __getitem__(self, strategy: str) -> StrategyResult:
        return self.strategies[strategy]

    def to_dict(self) -> dict[str, Any]:
        """The JSON document `dpplan.optimize/1` as plain values."""
        inputs: dict[str, Any] = {
            "hardware": self.hardware,
            "model": self.model,
            "workload": self.workload,
            "prefill_nodes": self.prefill_nodes,
            "decode_nodes": self.decode_nodes,
            "prefill_hardware": self.prefill_hardware,
            "decode_hardware": self.decode_hardware,
            "traffic": self.counting,
            "unlimited": list(self.unlimited),
            "set": list(self.settings),
        }
        return {
            "schema": "dpplan.optimize/1",
            "inputs": inputs,
            "demand": _plain(self.demand),
            "engines": {
                "prefill": _plain(self.prefill_engine),
                "decode": _plain(self.decode_engine),
            },
            "strategies": {
                name: {key: value for key, value in _plain(result).items() if key != "name"}
                for name, result in self.strategies.items()
            },
            "speedup": self.speedup,
            "speedup_own_best": self.speedup_own_best,
            "bottleneck_free": _plain(self.bottleneck_free),
            "nodes": [_plain(option) for option in self.node_options],
            "cost_usd_per_h": self.cost_usd_per_h,
            "power_w": self.power_w,
            "advice": [_plain(item) for item in self.advice],
            "assumptions": list(self.assumptions),
            "warnings": list(self.warnings),
        }

    def strategies_frame(self) -> pd.DataFrame:
        """One row a strategy: rates, split, bottlenecks."""
        import pandas as pd

        columns = (
            "decode_read_fraction",
            "turns_per_s",
            "sessions_per_s",
            "hit_kv_bytes_per_s",
            "prompt_tokens_per_s",
            "output_tokens_per_s",
        )
        rows = {
            name: {column: getattr(result, column) for column in columns}
            | {"bottlenecks": ", ".join(result.bottlenecks)}
            for name, result in self.strategies.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("strategy")

    def utilisation_frame(self) -> pd.DataFrame:
        """Share of each resource in use, resources by strategies."""
        import pandas as pd

        frame = pd.DataFrame(
            {name: pd.Series(r.utilisation) for name, r in self.strategies.items()}
        )
        return frame.rename_axis("resource")

    def shadow_prices_frame(self) -> pd.DataFrame:
        """Elasticity of the bound in each binding resource, resources by strategies."""
        import pandas as pd

        prices = {n: pd.Series(r.shadow_prices, dtype=float) for n, r in self.strategies.items()}
        return pd.DataFrame(prices).rename_axis("resource")

    def nodes_frame(self) -> pd.DataFrame:
        """One row a P:D: bound of each strategy, per node too, the chosen one marked."""
        import pandas as pd

        rows = []
        for option in self.node_options:
            nodes = option.prefill_nodes + option.decode_nodes + option.idle_nodes
            dual = option.turns_per_s["dual-path"]
            rows.append(
                {
                    "prefill_nodes": option.prefill_nodes,
                    "decode_nodes": option.decode_nodes,
                    "idle_nodes": option.idle_nodes,
                    **{f"{n} turns_per_s": rate for n, rate in option.turns_per_s.items()},
                    "dual-path turns_per_s_per_node": None if dual is None else dual / nodes,
                    "decode_read_fraction": option.decode_read_fraction,
                    "bottlenecks": ", ".join(option.bottlenecks),
                    "chosen": option.chosen,
                }
            )
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        """The plan as HTML for notebooks; all text escaped."""
        counts = f"{self.prefill_nodes}P{self.decode_nodes}D"
        title = f"{self.model} on {counts} {self.hardware}, {self.workload}"
        gain = "" if self.speedup is None else f"; dual-path {self.speedup:.2f}x prefill-only"
        results = list(self.strategies.values())
        rates = [
            ("turns/s", [_number(r.turns_per_s) for r in results]),
            ("hit KV, GB/s", [_number(r.hit_kv_bytes_per_s, 1e-9) for r in results]),
            ("prompt tok/s", [_number(r.prompt_tokens_per_s) for r in results]),
            ("output tok/s", [_number(r.output_tokens_per_s) for r in results]),
            ("read on decode side", [_percent(r.decode_read_fraction) for r in results]),
            (
                "bound by",
                ["<br/>".join(map(html.escape, r.bottlenecks)) or "nothing" for r in results],
            ),
        ]
        used = dict.fromkeys(name for r in results for name in r.utilisation)
        bars = [(name, [_bar(r.utilisation.get(name)) for r in results]) for name in used]
        head = "".join(f"<th style='text-align:right'>{html.escape(r.name)}</th>" for r in results)
        rest = "".join(f"<li>{html.escape(line)}</li>" for line in self.assumptions)
        return (
            f"<p><b>{html.escape(title)}</b> ({html.escape(self.counting)} traffic{gain})</p>"
            f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{_html_rows(rates)}</tbody>"
            f"<tbody>{_html_rows(bars)}</tbody></table>"
            f"<details><summary>{len(self.assumptions)} assumptions</summary>"
            f"<ol>{rest}</ol></details>"
        )


def _html_rows(rows: list[tuple[str, list[str]]]) -> str:
    """Table rows of a name, which is escaped, and cells that are HTML already."""
    return "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        + "".join(f"<td style='text-align:right;vertical-align:top'>{cell}</td>" for cell in cells)
        + "</tr>"
        for name, cells in rows
    )


def _number(value: float | None, scale: float = 1.0) -> str:
    if value is None:
        return "&ndash;"
    scaled = float(f"{value * scale:.3g}")
    return f"{scaled:,.0f}" if scaled >= 100 else f"{scaled:g}"


def _percent(fraction: float | None) -> str:
    return "&ndash;" if fraction is None else f"{fraction:.1%}"


def _bar(fraction: float | None) -> str:
    """A share as a bar; a full one is darker, so that it shows without colour too."""
    if fraction is None:
        return "&ndash;"
    colour = "#c44" if fraction > 1 - 1e-9 else "#8ab"
    return (
        "<div style='display:inline-block;width:6em;background:rgba(128,128,128,.2)'>"
        f"<div style='width:{fraction:.1%};height:.7em;background:{colour}'></div></div>"
        f" <span style='display:inline-block;width:4em'>{fraction:.1%}</span>"
    )


def _plain(value: Any) -> Any:
    """Dataclasses to dicts, tuples to lists, for JSON."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(inner) for inner in value]
    return value
