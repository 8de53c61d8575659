"""D7 on NVLink: against counting copies token by token, and its place in the bound."""

from __future__ import annotations

import random

import pytest

import dpplan
from dpplan.demand import nvlink_bytes_per_token
from dpplan.profiles.architecture import Architecture, LayerGroup, ParameterCounts


def _moe(experts: int, chosen: int, groups: int = 1, groups_per_token: int = 1) -> Architecture:
    return Architecture(
        (LayerGroup("attention", 3, heads=8),),
        hidden_size=16,
        vocab_size=10,
        parameters=ParameterCounts(0, 0, 0, 0, 0),
        moe_layers=3,
        routed_experts=experts,
        experts_per_token=chosen,
        dispatch_size=16,
        expert_groups=groups,
        expert_groups_per_token=groups_per_token,
    )


@pytest.mark.parametrize(("ep", "domain"), [(8, 8), (16, 8), (32, 8), (16, 4), (4, 8)])
def test_copies_are_those_of_tokens_drawn_at_random(ep: int, domain: int) -> None:
    """D7: remote ranks reached, less the first of every remote NVLink domain."""
    experts, chosen, draws = 128, 6, 20_000
    rng = random.Random(5)
    copies = 0
    for _ in range(draws):
        own = rng.randrange(ep)
        ranks = {e * ep // experts for e in rng.sample(range(experts), chosen)} - {own}
        domains = {rank // domain for rank in ranks}
        # A remote domain's first copy comes over the compute NICs and may land on any rank of it.
        copies += len(ranks) - len(domains - {own // domain})
    expected = 3 * 16 * (1 + 2) * copies / draws
    found = nvlink_bytes_per_token(
        _moe(experts, chosen), tp=1, ep=ep, domain_gpus=domain, dispatch_element_bytes=1.0
    )
    assert found == pytest.approx(expected, rel=0.02)


def test_tensor_parallelism_sums_over_the_ring() -> None:
    """D7: 2 all-reduces a layer, 2*(t-1) vectors of 2-byte elements each, in every domain."""
    dense = Architecture(
        (LayerGroup("attention", 5, heads=8),), 16, 10, ParameterCounts(0, 0, 0, 0, 0)
    )
    for tp, domain, domains in ((1, 8, 1), (4, 8, 1), (8, 8, 1), (16, 8, 2)):
        sent = sum(2 * 2 * (min(tp, domain) - 1) * 16 * 2 for _ in range(5)) * domains
        found = nvlink_bytes_per_token(
            dense, tp=tp, ep=1, domain_gpus=domain, dispatch_element_bytes=1.0
        )
        assert found == sent


def test_a_slow_nvlink_binds_gpu_time_and_a_faster_one_never_hurts() -> None:
    """D7, C: the key is not accepted and ignored, and paper counting has no collectives."""

    def plan(rate: str, traffic: str = "full") -> dpplan.Plan:
        return dpplan.optimize(
            "h800",
            "agentic",
            prefill_nodes=2,
            decode_nodes=4,
            traffic=traffic,  # type: ignore[arg-type]
            settings={"gpu.nvlink_bytes_per_s": rate},
        )

    rates = [plan(rate)["oracle"].turns_per_s for rate in ("1 GB/s", "10 GB/s", "200 GB/s")]
    assert None not in rates
    assert rates == sorted(rates, key=lambda rate: rate or 0)
    assert (rates[0] or 0) < (rates[2] or 0) / 10
    slow, fast = plan("1 GB/s", "paper"), plan("200 GB/s", "paper")
    assert slow["oracle"].turns_per_s == fast["oracle"].turns_per_s
