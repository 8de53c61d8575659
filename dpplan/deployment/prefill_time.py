"""Q-prefill: GPU-seconds of a prefill, from kernels, activations and collectives.

The planner's prefill time is a bound: FLOP over rates, or NVLink. Added here: weights read once a
batch, activations in HBM between the matrix products, and communication, exposed. Launch gaps,
routing kernels, unequal experts and micro-batches are left out: a default that also overlapped
perfectly would err twice on the fast side. No number is fitted to a prefill rate, but this default
was chosen with both schedules' predictions of measured rates in view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Array
from dpplan.demand import PrefillFlop, cache_layout, prefill_flop, remote_nodes_reached
from dpplan.deployment.capacity import effective
from dpplan.deployment.layouts import Engine, GpuRates
from dpplan.deployment.pools import side_rates, weights_of
from dpplan.deployment.turns import collective_bytes, nvlink_bytes
from dpplan.profiles.architecture import Architecture
from dpplan.profiles.hardware import Hardware
from dpplan.profiles.model import Model

__all__ = [
    "PrefillEngine",
    "PrefillTime",
    "activation_bytes_per_token",
    "prefill_engine",
    "prefill_time",
    "prefill_tokens_per_s_per_gpu",
]


BATCH_TOKENS = 16_384.0
"""Tokens per GPU of a forward batch: the DeepSeek profile's (github.com/deepseek-ai/profile-data).
Other engines: assumed the same."""

COMMUNICATION_SM_SHARE = 24 / 132
"""Multiprocessors that collectives hold while they overlap kernels: 24 (`set_num_sms`) in DeepEP's
example and tests (docs/legacy.md), of a Hopper SXM's 132. Other GPUs, all-reduces: assumed."""

COLLECTIVE_NIC_SHARE = 0.87
"""Of the line rate, during dispatch and combine. Measured on H800 with 400 Gbit/s: 58 GB/s at
EP32 (DeepEP docs/legacy.md), which count a token's own node; 3/4 of that, 43.5 of 50 GB/s, is on
the wire (DeepEP no. 51 read the same ratio off the NIC's counters). EP64: 51 * 7/8 = 44.6."""

COLLECTIVE_NVLINK_SHARE = 0.66
"""Of the NVLink rate, one direction, during dispatch and combine. Measured at EP8, which counts a
token's own rank: 153 * 7/8 of 200 GB/s on H800 (DeepEP docs/legacy.md, 0.67) and 337 * 7/8 of
450 GB/s on H20 (DeepEP no. 16, 0.655)."""

ACTIVATION_BYTES = 2.0
"""Per element between kernels: BF16, whatever the precision that matrix products read."""


@dataclass(frozen=True)
class PrefillTime:
    """Seconds of one GPU for its share of a forward batch, each of broadcast shape."""

    gemm_s: Array
    """Matrix products with weights."""
    attention_s: Array
    """Attention and indexer kernels."""
    weight_read_s: Array
    """Reading the weights once; hidden behind `gemm_s` where that is longer."""
    activation_s: Array
    """Kernels between the matrix products: norms, quantisation, gating, gathering of experts."""
    communication_s: Array
    """Collectives on compute NICs or NVLink, whichever takes longer."""
    total_s: Array
    """All of it, communication taking turns with kernels: the slow end of two micro-batches."""
    overlapped_s: Array
    """The faster of that and two micro-batches, perfectly overlapped: the fast end."""


def prefill_time(
    flop: PrefillFlop,
    tokens: npt.ArrayLike,
    rates: GpuRates,
    *,
    weight_read_bytes: npt.ArrayLike = 0.0,
    activation_bytes_per_token: float = 0.0,
    communication_s_per_token: float = 0.0,
) -> PrefillTime:
    """Seconds that a GPU takes for `tokens` tokens of a forward batch (Q-prefill).

    w(n) = max(gemm, n * weight read) + attention + activations are the kernels of n micro-batches,
    each of which reads the weights; c is communication. Two schedules:
    total = w(1) + c, in turns: additive over tokens (if weights' reading hides behind products);
    overlapped = min{ total, max( w(2) / (1 - COMMUNICATION_SM_SHARE), c ) }: of two micro-batches,
    one communicates while the other computes on the multiprocessors that are left.
    An engine with two micro-batches lies between, but for what the law leaves out: the DeepSeek
    profile's 7,839 tok/s does (6,495 to 8,992), SGLang's 6,538 is below both (6,834 and 9,815).
    Raises ValueError if tokens, bytes or seconds are negative.

    Parameters
    ----------
    flop : PrefillFlop
        FLOP of this GPU's share of the batch [FLOP].
    tokens : array_like
        Tokens of this GPU's share [tokens], broadcast with the FLOP.
    rates : GpuRates
        Usable rates of its kernels and its HBM [FLOP/s, bytes/s].
    weight_read_bytes : array_like
        Weights this GPU reads for the batch [bytes].
    activation_bytes_per_token : float
        HBM traffic between the matrix products [bytes/token].
    communication_s_per_token : float
        Collectives of a computed token (D7) over the rates that a GPU's links reach [s/token].

    Examples
    --------
    8 s of products, 1 s each of attention and activations, 5 s of communication: taking turns
    15 s, overlapped 10 / (1 - 24/132) = 12.2 s.

    >>> rates = GpuRates(1.0, 1.0, 1.0, hbm_bytes_per_s=1.0, hbm_bytes=1.0)
    >>> flop = PrefillFlop(np.array(8.0), np.array(1.0), np.array(0.0))
    >>> costs = {"activation_bytes_per_token": 1.0, "communication_s_per_token": 5.0}
    >>> found = prefill_time(flop, 1.0, rates, **costs)
    >>> float(found.total_s), round(float(found.overlapped_s), 3)
    (15.0, 12.222)
    """
    token, weights = np.asarray(tokens, dtype=float), np.asarray(weight_read_bytes, dtype=float)
    least = min(activation_bytes_per_token, communication_s_per_token)
    if np.any(token < 0) or np.any(weights < 0) or least < 0:
        raise ValueError("prefill_time: tokens, bytes and seconds of zero or more are needed")
    gemm, attention, read, activation, communication = np.broadcast_arrays(
        flop.gemm / rates.gemm_flop_per_s,
        flop.attention / rates.attention_flop_per_s + flop.index / rates.index_flop_per_s,
        weights / rates.hbm_bytes_per_s,
        token * (activation_bytes_per_token / rates.hbm_bytes_per_s),
        token * communication_s_per_token,
    )
    total = np.asarray(np.maximum(gemm, read) + attention + activation + communication)
    halves = np.maximum(gemm, 2.0 * read) + attention + activation
    overlapped = np.maximum(halves / (1.0 - COMMUNICATION_SM_SHARE), communication)
    fast = np.asarray(np.minimum(total, overlapped))
    return PrefillTime(gemm, attention, read, activation, communication, total, fast)


def activation_bytes_per_token(
    architecture: Architecture, operand_bytes: float, ep: int = 1, expert_load: float = 1.0
) -> float:
    """HBM bytes that kernels between the matrix products read and write per token (Q-prefill).

    Vectors in BF16; where products read a narrower operand (q bytes), a quantisation kernel reads
    2 and writes q per element. Per layer, of hidden size h:

    - twice residual and norm (2 reads, 2 writes of h) and quantisation of h;
    - rotation and assembly of queries and keys (1 read, 1 write), quantisation of the output;
    - gating of FFN (reads 2 widths, writes 1) and quantisation; width = parameters / (3 h), for
      which all of `body` counts as FFN (in place of attention's inner norms);
    - the sum over k experts, written once for each rank to answer, and with expert parallelism the
      gathering of k operands (1 read, 1 write). Without it, grouped products gather themselves.

    What matrix products, attention and collectives read and write is in their own rates.

    `operand_bytes` is q; `ep` the ranks of the expert-parallel group; `expert_load` as in
    `prefill_engine`. Tensor-parallel ranks are taken to share the tokens (sequence parallelism).

    Examples
    --------
    One BF16 layer, h = 10, a head of 4, width 10: 2*4*10 + 2*8 + 3*10 elements of 2 bytes.

    >>> from dpplan.profiles.architecture import LayerGroup, ParameterCounts
    >>> layer = LayerGroup("x", 1, kv_elements_per_entry=8, heads=1, qk_dim=4, v_dim=4)
    >>> counts = ParameterCounts(0, 0, 0, 0, body=300)
    >>> activation_bytes_per_token(Architecture((layer,), 10, 10, counts), 2.0)
    252.0
    """
    wide, hidden, a = ACTIVATION_BYTES, float(architecture.hidden_size), architecture
    quantised = wide + operand_bytes if operand_bytes < wide else 0.0
    gating = 3.0 * wide + quantised
    total = a.layers * 2.0 * hidden * (4.0 * wide + quantised)
    total += a.parameters.body / (3.0 * hidden) * gating
    for group in a.layer_groups:
        kept = max(group.kv_elements_per_entry, group.window_kv_elements_per_token)
        rotated, output = group.heads * group.qk_dim + kept / 2, group.heads * group.v_dim
        if group.latent_dim:  # MLA prefills new tokens in expanded form: keys as wide as queries
            rotated = 2.0 * group.heads * group.expanded_qk_dim
            output = group.heads * group.expanded_v_dim
        total += group.layers * (rotated * 2.0 * wide + output * quantised)
    if a.moe_layers:
        width, chosen = float(a.dispatch_size), a.experts_per_token
        groups = a.expert_groups, a.expert_groups_per_token
        answers = 1.0 + remote_nodes_reached(ep, a.routed_experts, chosen, *groups)
        routed = a.parameters.routed_experts_active / (3.0 * width) * gating
        routed += a.moe_layers * width * (chosen + answers) * wide
        if ep > 1:
            routed += a.moe_layers * width * chosen * 2.0 * min(operand_bytes, wide)
        total += routed * expert_load
    return total


@dataclass(frozen=True)
class PrefillEngine:
    """A model on an engine, in numbers: what the prefill of any turn is timed from."""

    architecture: Architecture
    rates: GpuRates
    weight_read_bytes: float
    """Weights that each GPU reads for a forward batch."""
    batch_tokens: float
    """Tokens per GPU of a forward batch."""
    expert_load: float
    """Tokens of the busiest rank's experts over the mean rank's: it sets the pace."""
    activation_bytes_per_token: float
    communication_s_per_token: float
    """On compute NICs or NVLink, whichever takes longer."""

    def time(self, context_tokens: npt.ArrayLike, append_tokens: npt.ArrayLike) -> PrefillTime:
        """GPU-seconds of turns' prefills, each its tokens' share of full batches (Q-prefill).

        `context_tokens` cached and `append_tokens` computed, broadcast together. Over the engine's
        GPUs, the total is the time on it alone. Raises ValueError if tokens are negative.
        """
        append = np.asarray(append_tokens, dtype=float)
        if np.any(np.asarray(context_tokens) < 0):
            raise ValueError("PrefillEngine.time: context_tokens of zero or more are needed")
        flop = prefill_flop(self.architecture, context_tokens, append)
        routed = 2.0 * self.architecture.parameters.routed_experts_active * append
        gemm = np.asarray(flop.gemm + (self.expert_load - 1.0) * routed)
        return prefill_time(
            PrefillFlop(gemm, flop.attention, flop.index),
            append,
            self.rates,
            weight_read_bytes=self.weight_read_bytes * append / self.batch_tokens,
            activation_bytes_per_token=self.activation_bytes_per_token,
            communication_s_per_token=self.communication_s_per_token,
        )


def prefill_engine(
    hardware: Hardware,
    model: Model,
    engine: Engine,
    rates: GpuRates,
    *,
    batch_tokens: float = BATCH_TOKENS,
    expert_load: float = 1.0,
) -> PrefillEngine:
    """Numbers of a model on an engine, read from the profiles once (Q-prefill, `full` counting).

    `rates` are the side's usable ones (C). `batch_tokens` [tokens] is a GPU's share of a forward
    batch; `expert_load` the tokens of the busiest rank's experts over the mean rank's, 1 =
    balanced. Raises ValueError if the batch is empty or the busiest rank below the mean.
    """
    if not batch_tokens > 0 or not expert_load >= 1:
        needed = "batch_tokens above 0 and expert_load of 1 or more are needed"
        raise ValueError(f"prefill_engine: {needed}, got {batch_tokens} and {expert_load}")
    weights, architecture = weights_of(model), model.architecture
    nvlink_bytes_per_s = effective(rates.nvlink_bytes_per_s, COLLECTIVE_NVLINK_SHARE)
    share = min(COLLECTIVE_NIC_SHARE, hardware.efficiency.compute_nic)
    nics = hardware.compute_nic.count * hardware.compute_nic.bytes_per_s / hardware.gpus
    # A GPU lifted by `--unlimited` waits for nothing, as in the planner's bound.
    nic_bytes_per_s = math.inf if math.isinf(rates.nvlink_bytes_per_s) else effective(nics, share)
    operand_bytes = 1.0 if model.compute_dtype in ("fp8", "fp4") else 2.0
    read = weights.shared_bytes / engine.tp + weights.expert_bytes / max(engine.ep, engine.tp)
    activation = activation_bytes_per_token(architecture, operand_bytes, engine.ep, expert_load)
    on_nic_s = collective_bytes(engine, hardware, model) / nic_bytes_per_s
    on_nvlink_s = nvlink_bytes(engine, hardware, model) / nvlink_bytes_per_s
    sent_s = expert_load * max(on_nic_s, on_nvlink_s)
    return PrefillEngine(architecture, rates, read, batch_tokens, expert_load, activation, sent_s)


def prefill_tokens_per_s_per_gpu(
    hardware: Hardware,
    model: Model,
    *,
    context_tokens: float,
    append_tokens: float,
    engine_gpus: int = 1,
    tokens_per_gpu: float = BATCH_TOKENS,
    expert_load: float = 1.0,
    overlap: bool = False,
) -> float:
    """Computed tokens per second and GPU of a busy prefill engine (Q-prefill) [tokens/s].

    Every GPU attends for its own tokens (TP 1), experts spread over all `engine_gpus`; a dense
    model runs a replica on each. Prompts of `context_tokens` cached and `append_tokens` computed
    fill batches of `tokens_per_gpu`; `expert_load` as in `prefill_engine`. Communication is
    exposed; `overlap` gives the fast end, two micro-batches overlapped. HBM is not checked.
    Raises ValueError if no token is computed, or as `prefill_engine` does.
    """
    if not append_tokens > 0:
        raise ValueError(f"append_tokens above 0 are needed, got {append_tokens}")
    layout = cache_layout(model.architecture, model.kv_element_bytes, model.index_element_bytes)
    rates, _, _ = side_rates("prefill", hardware, model, layout, "full", frozenset())
    ep = engine_gpus if model.architecture.moe_layers else 1
    nodes = math.ceil(engine_gpus / hardware.gpus)
    engine = Engine(engine_gpus, nodes, 1, engine_gpus, ep, 0.0, math.inf, 1.0)
    numbers = prefill_engine(
        hardware, model, engine, rates, batch_tokens=tokens_per_gpu, expert_load=expert_load
    )
    time = numbers.time(context_tokens, append_tokens)
    return append_tokens / float(time.overlapped_s if overlap else time.total_s)
