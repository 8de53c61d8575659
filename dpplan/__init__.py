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
    from dpplan.cache_plan import plan_cache_sizes
    from dpplan.cache_sizes import CachePlan
    from dpplan.errors import BadInput, DpplanError, Infeasible, UncertifiedAnswer
    from dpplan.fleet import FleetPlan, optimize_pools, size
    from dpplan.planner import optimize
    from dpplan.prediction import Prediction
    from dpplan.predictor import predict
    from dpplan.result import Plan
    from dpplan.traces.statistics import trace_stats
    from dpplan.traces.trace_summary import TraceStats
    from dpplan.traces.workload import TraceWorkload, trace_workload

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
    "FleetPlan": "dpplan.fleet",
    "Plan": "dpplan.result",
    "Prediction": "dpplan.prediction",
    "optimize": "dpplan.planner",
    "optimize_pools": "dpplan.fleet",
    "plan_cache_sizes": "dpplan.cache_plan",
    "CachePlan": "dpplan.cache_sizes",
    "predict": "dpplan.predictor",
    "size": "dpplan.fleet",
    "trace_stats": "dpplan.traces.statistics",
    "TraceStats": "dpplan.traces.trace_summary",
    "TraceWorkload": "dpplan.traces.workload",
    "trace_workload": "dpplan.traces.workload",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dpplan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
