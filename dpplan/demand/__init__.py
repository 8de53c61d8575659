"""What one turn asks for: bytes, FLOP, seconds (tag D). Pure functions that broadcast.

Nothing here knows hardware; what a node delivers is in `dpplan.capacity`, and the two meet in the
traffic table of `dpplan.routes`.
"""

from dpplan.demand.collectives import (
    all_reduce_bytes_per_token,
    collective_bytes_per_token,
    dispatch_bytes_per_token,
    nvlink_bytes_per_token,
    remote_nodes_reached,
)
from dpplan.demand.decode import DecodeDemand, decode_demand, largest_batch, step_time_s
from dpplan.demand.flop import (
    Counting,
    PrefillFlop,
    attended_pairs,
    cache_compute_ratio,
    prefill_flop,
)
from dpplan.demand.kv_cache import (
    BLOCK_TOKENS,
    CacheLayout,
    cache_layout,
    hit_rate,
    persisted_tokens,
    sequence_bytes,
)

__all__ = [
    "BLOCK_TOKENS",
    "CacheLayout",
    "Counting",
    "DecodeDemand",
    "PrefillFlop",
    "all_reduce_bytes_per_token",
    "attended_pairs",
    "cache_compute_ratio",
    "cache_layout",
    "collective_bytes_per_token",
    "decode_demand",
    "dispatch_bytes_per_token",
    "hit_rate",
    "largest_batch",
    "nvlink_bytes_per_token",
    "persisted_tokens",
    "prefill_flop",
    "remote_nodes_reached",
    "sequence_bytes",
    "step_time_s",
]
