"""dpplan: the analytical model of DualPath KV-cache loading, for planning LLM serving clusters.

>>> import dpplan
>>> plan = dpplan.optimize(hardware="h800", workload="agentic", prefill_nodes=2, decode_nodes=4)
>>> plan.bottleneck_free.holds
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dpplan.errors import BadInput, DpplanError, Infeasible, UncertifiedAnswer
    from dpplan.planner.optimize import optimize
    from dpplan.planner.predict import predict
    from dpplan.planner.size import FleetPlan, optimize_pools, size
    from dpplan.planner.trace_cache import plan_cache_sizes
    from dpplan.results.optimize import Plan
    from dpplan.results.predict import Prediction
    from dpplan.results.trace_cache import CachePlan
    from dpplan.traces.statistics.trace_stats import trace_stats
    from dpplan.traces.statistics.trace_summary import TraceStats
    from dpplan.traces.workload.trace_workload import TraceWorkload, trace_workload

__all__ = [
    "BadInput",
    "CachePlan",
    "DpplanError",
    "FleetPlan",
    "Infeasible",
    "Plan",
    "Prediction",
    "TraceStats",
    "TraceWorkload",
    "UncertifiedAnswer",
    "__version__",
    "optimize",
    "optimize_pools",
    "plan_cache_sizes",
    "predict",
    "size",
    "trace_stats",
    "trace_workload",
]

# Resolved on first use, so that `dpplan --help` pays for none of numpy, pydantic and the solver.
_HOMES = {
    "BadInput": "dpplan.errors",
    "DpplanError": "dpplan.errors",
    "Infeasible": "dpplan.errors",
    "UncertifiedAnswer": "dpplan.errors",
    "FleetPlan": "dpplan.planner.size",
    "Plan": "dpplan.results.optimize",
    "Prediction": "dpplan.results.predict",
    "optimize": "dpplan.planner.optimize",
    "optimize_pools": "dpplan.planner.size",
    "plan_cache_sizes": "dpplan.planner.trace_cache",
    "CachePlan": "dpplan.results.trace_cache",
    "predict": "dpplan.planner.predict",
    "size": "dpplan.planner.size",
    "trace_stats": "dpplan.traces.statistics.trace_stats",
    "TraceStats": "dpplan.traces.statistics.trace_summary",
    "TraceWorkload": "dpplan.traces.workload.trace_workload",
    "trace_workload": "dpplan.traces.workload.trace_workload",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dpplan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
