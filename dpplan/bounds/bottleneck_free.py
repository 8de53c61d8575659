"""S1: for which P:D every storage NIC can be saturated, with every term named.

All storage NICs read at full rate S on both sides. Each other resource must carry what that puts
on it, by the traffic table: with a the units per byte read on the prefill side and b per byte read
on the decode side, a prefill resource needs P*(C - a*S_p) >= D*b*S_d, a decode resource
D*(C - b*S_d) >= P*a*S_p. Coefficients come from `dpplan.routes`; nothing of the paper's equation 9
is written down twice. Where a DRAM pool serves k bytes per byte that storage serves, k times the
pool's entry joins both a and b.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dpplan.arrays import Array
from dpplan.deployment.capacity import NodeCapacity
from dpplan.deployment.routes import FLOWS, POOL, resource_index, traffic_table

__all__ = ["BottleneckFreeRange", "RangeTerm", "bottleneck_free_range", "paper_range"]

_NETWORKS = ("compute_nic_read", "compute_nic_write", "dram")


@dataclass(frozen=True)
class RangeTerm:
    """One resource's demand on P/D."""

    resource: str
    kind: str
    """"at least", "at most" (limits on P/D) or "always" (a condition whatever P/D)."""
    p_over_d: float | None
    """The limit on P/D; None for an "always" condition."""
    satisfiable: bool
    """False where no positive P/D can meet it."""
    equation: str
    """In symbols of capacities C, storage rates S_p and S_d."""
    numbers: str
    """The same with the numbers put in, in GB/s."""


@dataclass(frozen=True)
class BottleneckFreeRange:
    """The range of P/D in which every storage NIC can be saturated."""

    p_over_d_min: float | None
    """Largest lower limit, raw (may be negative); None where it is undefined: s = g, or no storage
    NIC that could be saturated."""
    p_over_d_max: float | None
    """Smallest upper limit, raw; None where nothing limits P/D from above (resources lifted)."""
    terms: tuple[RangeTerm, ...]
    idle: str = "storage NICs are unlimited"
    """Why there is nothing to saturate, where there are no terms."""

    def verdict(self, p_over_d: float) -> tuple[bool, str]:
        """Does this P/D let all storage NICs saturate, and if not, why (in words)."""
        if not self.terms and self.p_over_d_min is None:
            return False, f"{self.idle}: there is nothing to saturate"
        broken = [
            f"{term.resource} would need {term.equation}"
            for term in self.terms
            if not _met(term, p_over_d)
        ]
        if broken:
            return False, "storage NICs cannot all be saturated: " + "; ".join(broken)
        return True, "every storage NIC can be saturated"


def _met(term: RangeTerm, p_over_d: float) -> bool:
    slack = 1e-12 * p_over_d
    if term.p_over_d is None or not term.satisfiable:
        return term.satisfiable
    if term.kind == "at least":
        return p_over_d >= term.p_over_d - slack
    return p_over_d <= term.p_over_d + slack


def bottleneck_free_range(
    prefill: NodeCapacity,
    decode: NodeCapacity,
    *,
    table: Array | None = None,
    pool_bytes_per_storage_byte: float = 0.0,
) -> BottleneckFreeRange:
    """Range of P/D that lets every storage NIC saturate (S1, eq. 9 for unlike node types).

    Parameters
    ----------
    prefill, decode : NodeCapacity
        Usable rates of one node of either side; inf = unlimited.
    table : ndarray, optional
        `traffic_table()` of shape (resources, flows); give it for shared fabrics.
    pool_bytes_per_storage_byte : float
        k, hit KV that the prefill nodes' DRAM serves meanwhile; inf = storage serves none.

    Returns
    -------
    BottleneckFreeRange
        P/D is dimensionless, nodes per node.

    References
    ----------
    DualPath, arXiv 2602.21548, sec. 4.2, eqs. 1-9.

    Examples
    --------
    The paper's node: 8 compute NICs and 1 storage NIC of 50 GB/s, DRAM 500 GB/s.

    >>> node = NodeCapacity(50e9, 50e9, 400e9, 400e9, 500e9, 80e9)
    >>> r = bottleneck_free_range(node, node)
    >>> r.p_over_d_min == 1 / 7, r.p_over_d_max
    (True, 3.5)
    """
    if math.isinf(prefill.storage_nic_read) or math.isinf(decode.storage_nic_read):
        return BottleneckFreeRange(None, None, ())
    if math.isinf(pool_bytes_per_storage_byte):
        return BottleneckFreeRange(None, None, (), "no hit KV is read from storage")
    entries = traffic_table() if table is None else table
    first, second, pool = (FLOWS.index(name) for name in ("prefill_read", "decode_read", POOL))
    s_p, s_d = prefill.storage_nic_read, decode.storage_nic_read
    terms = []
    for name in _NETWORKS:
        for side, node in (("prefill", prefill), ("decode", decode)):
            row = entries[resource_index(f"{side}.{name}")]
            beside = pool_bytes_per_storage_byte * float(row[pool])
            a, b = float(row[first]) + beside, float(row[second]) + beside
            capacity = float(getattr(node, name))
            if math.isinf(capacity):
                continue
            terms.append(_term(f"{side}.{name}", side, a, b, capacity, s_p, s_d))
    lower = [t.p_over_d for t in terms if t.kind == "at least" and t.p_over_d is not None]
    undefined = any(t.kind == "at least" and t.p_over_d is None for t in terms)
    upper = [t.p_over_d for t in terms if t.kind == "at most" and t.p_over_d is not None]
    return BottleneckFreeRange(
        p_over_d_min=None if undefined else max(lower, default=0.0),
        p_over_d_max=min(upper, default=None),
        terms=tuple(terms),
    )


def _term(
    resource: str, side: str, a: float, b: float, capacity: float, s_p: float, s_d: float
) -> RangeTerm:
    own, own_rate = (a, s_p) if side == "prefill" else (b, s_d)
    other, other_rate = (b, s_d) if side == "prefill" else (a, s_p)
    own_symbol, other_symbol = ("S_p", "S_d") if side == "prefill" else ("S_d", "S_p")
    room = capacity - own * own_rate
    own_text = f"{own:g}*{own_symbol}" if own != 1 else own_symbol
    other_text = f"{other:g}*{other_symbol}" if other != 1 else other_symbol
    c, o, t = (f"{value / 1e9:.4g}" for value in (capacity, own * own_rate, other * other_rate))
    if not other:
        return RangeTerm(
            resource, "always", None, room >= 0, f"{own_text} <= C", f"{o} <= {c} GB/s"
        )
    if side == "prefill":
        equation = f"P/D >= {other_text} / (C - {own_text})" if own else f"P/D >= {other_text} / C"
        limit = other * other_rate / room if room != 0 else None
        numbers = f"P/D >= {t} / ({c} - {o})"
        return RangeTerm(resource, "at least", limit, room > 0, equation, numbers)
    divisor = f"({other_text})" if other != 1 else other_text
    equation = f"P/D <= (C - {own_text}) / {divisor}"
    limit = room / (other * other_rate)
    return RangeTerm(resource, "at most", limit, room > 0, equation, f"P/D <= ({c} - {o}) / {t}")


def paper_range(
    g: float, s: float, bytes_per_s: float, dram_bytes_per_s: float
) -> tuple[float, float]:
    """Equation 9 as the paper prints it, for like nodes (S1); the second road to the range.

    s/(g-s) <= P/D <= min{ (g-2s)/s, (g-s)/(2s), (M/(B*s) - 3)/2 }

    Parameters
    ----------
    g, s : float
        Compute NICs, and storage bandwidth in units of one compute NIC.
    bytes_per_s, dram_bytes_per_s : float
        B and M [bytes/s].

    Returns
    -------
    (float, float)
        Lower and upper limit of P/D.

    Examples
    --------
    >>> paper_range(8, 1, 50e9, 500e9)
    (0.14285714285714285, 3.5)
    """
    lower = s / (g - s)
    upper = min((g - 2 * s) / s, (g - s) / (2 * s), (dram_bytes_per_s / (bytes_per_s * s) - 3) / 2)
    return lower, upper
