"""A model on node types: where demand and capacity meet on the traffic table's rows.

placement: engines and how the model is laid over GPUs; sides: usable rates of prefill and decode
nodes; turns: what one turn asks of them; engines: which layouts a side may run; limits: use and
capacity as arrays for the solvers.
"""

from dpplan.deployment.limits import Deployment, Limits, assemble_limits
from dpplan.deployment.pools import Side
from dpplan.deployment.turns import ClassDemand

__all__ = ["ClassDemand", "Deployment", "Limits", "Side", "assemble_limits"]
