"""D7 bytes that tensor and expert parallelism put on the compute NICs per computed token."""

from __future__ import annotations

import itertools
import math
from functools import cache

from dpplan.profiles.architecture import Architecture

__all__ = [
    "COMBINE_ELEMENT_BYTES",
    "all_reduce_bytes_per_token",
    "collective_bytes_per_token",
    "dispatch_bytes_per_token",
    "nvlink_bytes_per_token",
    "remote_nodes_reached",
]

COMBINE_ELEMENT_BYTES = 2.0
"""Expert outputs are summed in BF16 (DeepEP), whatever the dispatch is sent in."""

_ALL_REDUCES_PER_LAYER = 2
"""Tensor parallelism sums partial results after attention and after the FFN."""


@cache
def remote_nodes_reached(
    nodes: int,
    routed_experts: int,
    experts_per_token: int,
    expert_groups: int = 1,
    groups_per_token: int = 1,
) -> float:
    """Mean number of other nodes that hold an expert a token chose (D7).

    Experts spread evenly over `nodes`; k distinct experts of E are chosen uniformly, first
    `groups_per_token` of `expert_groups` where routing is node-limited. A node is missed with
    probability C(E - E/n, k) / C(E, k) (within the chosen groups), and one of the nodes reached is
    the token's own with the same chance as any other: (n - 1) * (1 - P(missed)).

    Parameters
    ----------
    nodes : int
        n, NVLink domains the engine spans: traffic within one uses no compute NIC.
    routed_experts, experts_per_token : int
        E and k.
    expert_groups, groups_per_token : int
        Router groups, and how many of them a token may reach (1, 1 = no limit).

    Returns
    -------
    float
        Nodes per token and MoE layer, below n.

    Examples
    --------
    >>> remote_nodes_reached(1, 256, 8)
    0.0
    >>> round(remote_nodes_reached(2, 256, 8), 3)
    0.997
    """
    if nodes <= 1 or routed_experts == 0:
        return 0.0
    if expert_groups <= 1 or groups_per_token >= expert_groups:
        per_node = routed_experts / nodes
        return (nodes - 1) * (1 - _missed(routed_experts, per_node, experts_per_token))
    reached = 0.0
    for node in range(nodes):
        # Experts lie in order, so a node holds a run of groups: whole ones, and parts at its ends.
        first, last = node * expert_groups / nodes, (node + 1) * expert_groups / nodes
        shares = [
            min(last, group + 1) - max(first, group)
            for group in range(math.floor(first), math.ceil(last))
        ]
        reached += _reached(
            shares,
            routed_experts / expert_groups,
            expert_groups,
            groups_per_token,
            experts_per_token,
        )
    return (nodes - 1) * reached / nodes


def _reached(
    shares: list[float], per_group: float, groups: int, groups_per_token: int, chosen: int
) -> float:
    """Chance that a token reaches a node that holds these shares of groups."""
    parts = [share for share in shares if share < 1 - 1e-9]
    whole = len(shares) - len(parts)
    chance = 0.0
    for open_parts in itertools.product((0, 1), repeat=len(parts)):
        partly = sum(share for share, is_open in zip(parts, open_parts, strict=True) if is_open)
        for open_whole in range(whole + 1):
            elsewhere = groups_per_token - open_whole - sum(open_parts)
            if elsewhere < 0:
                continue
            ways = math.comb(whole, open_whole) * math.comb(groups - len(shares), elsewhere)
            held = (open_whole + partly) * per_group
            chance += ways * (1 - _missed(groups_per_token * per_group, held, chosen))
    return chance / math.comb(groups, groups_per_token)


def _missed(pool: float, held: float, chosen: int) -> float:
    """Chance that none of `chosen` distinct experts of `pool` is among `held` of them."""
    chance = 1.0
    for i in range(chosen):
        if pool - i <= 0:
            break
        chance *= max(0.0, (pool - held - i) / (pool - i))
    return chance


def dispatch_bytes_per_token(
    architecture: Architecture, nodes: int, dispatch_element_bytes: float
) -> float:
    """Bytes a token's MoE dispatch and combine send over the compute NICs (D7).

    layers * width * (dispatch bytes + combine bytes) * remote nodes: one copy per remote node
    (NVLink forwards it there to the GPUs), combine back in BF16.

    Returns
    -------
    float
        Bytes per token, read by the sender's NIC and written by the receiver's.
    """
    reached = remote_nodes_reached(
        nodes,
        architecture.routed_experts,
        architecture.experts_per_token,
        architecture.expert_groups,
        architecture.expert_groups_per_token,
    )
    per_copy = architecture.dispatch_size * (dispatch_element_bytes + COMBINE_ELEMENT_BYTES)
    return architecture.moe_layers * per_copy * reached


def all_reduce_bytes_per_token(architecture: Architecture, nodes: int) -> float:
    """Bytes that all-reduces of a tensor-parallel group across `nodes` send per token (D7).

    2 all-reduces a layer of hidden*2 bytes; hierarchical ring: 2*(n-1)/n of the vector per node,
    n nodes.

    >>> from dpplan.profiles.architecture import Architecture, LayerGroup, ParameterCounts
    >>> a = Architecture((LayerGroup("x", 1),), 10, 10, ParameterCounts(0, 0, 0, 0, 0))
    >>> all_reduce_bytes_per_token(a, 2)
    80.0
    """
    if nodes <= 1:
        return 0.0
    vector = architecture.hidden_size * COMBINE_ELEMENT_BYTES
    return architecture.layers * _ALL_REDUCES_PER_LAYER * vector * 2.0 * (nodes - 1)


def collective_bytes_per_token(
    architecture: Architecture,
    *,
    expert_domains: int,
    tensor_domains: int,
    dispatch_element_bytes: float,
) -> float:
    """All collective bytes of one computed token on the compute NICs (D7) [bytes/token].

    Parameters
    ----------
    architecture : Architecture
    expert_domains, tensor_domains : int
        NVLink domains that the expert-parallel and the tensor-parallel group span.
    dispatch_element_bytes : float
        Bytes per element of the dispatched vector.
    """
    return dispatch_bytes_per_token(
        architecture, expert_domains, dispatch_element_bytes
    ) + all_reduce_bytes_per_token(architecture, tensor_domains)


def nvlink_bytes_per_token(
    architecture: Architecture,
    *,
    tp: int,
    ep: int,
    domain_gpus: int,
    dispatch_element_bytes: float,
) -> float:
    """Collective bytes of one computed token on NVLink (D7), sent by all GPUs together.

    All-reduces within a domain: 2 a layer, 2*(t-1) vectors of hidden*2 bytes over its t ranks.
    Dispatch and combine: one copy per rank a token's experts lie on, less the token's own and
    less the first of every remote domain, which came over the compute NICs.

    Parameters
    ----------
    architecture : Architecture
    tp, ep : int
        Ranks of the tensor-parallel and the expert-parallel group.
    domain_gpus : int
        GPUs of an NVLink domain.
    dispatch_element_bytes : float
        Bytes per element of the dispatched vector.

    Returns
    -------
    float
        Bytes per token; over the NVLink rate of one GPU, the GPU-seconds they take at least.

    Examples
    --------
    One layer of width 10, tensor parallelism over 4 GPUs of a domain:

    >>> from dpplan.profiles.architecture import Architecture, LayerGroup, ParameterCounts
    >>> a = Architecture((LayerGroup("x", 1),), 10, 10, ParameterCounts(0, 0, 0, 0, 0))
    >>> nvlink_bytes_per_token(a, tp=4, ep=1, domain_gpus=8, dispatch_element_bytes=1.0)
    240.0
    """
    ranks = min(tp, domain_gpus)
    domains = math.ceil(tp / domain_gpus)
    vector = architecture.hidden_size * COMBINE_ELEMENT_BYTES
    reduced = architecture.layers * _ALL_REDUCES_PER_LAYER * 2.0 * (ranks - 1) * vector * domains
    everywhere = dispatch_bytes_per_token(architecture, ep, dispatch_element_bytes)
    between = dispatch_bytes_per_token(
        architecture, math.ceil(ep / domain_gpus), dispatch_element_bytes
    )
    return reduced + max(0.0, everywhere - between)
