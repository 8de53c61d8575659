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
    from dpplan.fleet import FleetPlan, optimize_pools, size
    from dpplan.planner import optimize
    from dpplan.prediction import Prediction
    from dpplan.predictor import predict
    from dpplan.result import Plan

__all__ = [
    "BadInput",
    "DpplanError",
    "FleetPlan",
    "Infeasible",
    "Plan",
    "Prediction",
    "UncertifiedAnswer",
    "__version__",
    "optimize",
    "optimize_pools",
    "predict",
    "size",
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
    "predict": "dpplan.predictor",
    "size": "dpplan.fleet",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dpplan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
