"""Terms of demand (D): what one turn of a class asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dpplan.demand import BLOCK_TOKENS
from dpplan.deployment import ClassDemand, Limits
from dpplan.planner.assumptions import source_of
from dpplan.planner.explain.term import PAPER, Term, short
from dpplan.profiles.hardware import Hardware
from dpplan.profiles.model import Model
from dpplan.units import format_quantity

__all__ = ["demand_terms"]


def demand_terms(c: ClassDemand, model: Model, limits: Limits) -> Iterator[Term]:
    """D1 to D7 of one class, in the order they build on each other."""
    full = limits.counting == "full"
    own = f"workload {c.name}"
    a, kv, index = model.architecture, model.kv_element_bytes, model.index_element_bytes
    parts = []
    for group in a.layer_groups:
        per_layer = []
        if group.kv_elements_per_entry:
            per_layer.append(f"{group.kv_elements_per_entry:g}*{kv:g}")
        if group.index_elements_per_entry:
            per_layer.append(f"{group.index_elements_per_entry:g}*{index:g}")
        if per_layer:
            ratio = f"/{group.tokens_per_entry}" if group.tokens_per_entry > 1 else ""
            parts.append(f"{group.layers}*({' + '.join(per_layer)}){ratio}")
    dtype = source_of("kv_dtype", model.sources)
    kind = f"; KV dtype {model.kv_dtype} {dtype.kind}" if dtype else ""
    yield Term(
        "D1",
        f"KV bytes per token, {model.name}",
        "sum over layers of elements * bytes / tokens per entry",
        " + ".join(parts) or "no layer keeps the whole context",
        limits.layout.bytes_per_token,
        "bytes/token",
        f"model {model.name}, config.json fields{kind}",
    )
    constants = []
    if full and limits.layout.windows:
        constants += [f"{size:g} * min(c, {w:g})" for w, size in limits.layout.windows]
    if full and limits.layout.state_bytes:
        constants.append(f"state {limits.layout.state_bytes:.4g}")
    yield Term(
        "D1",
        f"hit KV of a turn, {c.name}",
        "KV bytes per token * c" + (" + windows + state" if constants else ""),
        " + ".join([f"{limits.layout.bytes_per_token:g} * {c.context_tokens:g}", *constants]),
        c.hit_kv_bytes,
        "bytes/turn",
        own,
    )
    if c.dram_hit_fraction:
        yield Term(
            "T",
            f"hit KV found in DRAM, {c.name}",
            "dram_hit_fraction * hit KV: flows as pool_read, the rest on its route",
            f"{c.dram_hit_fraction:g} * {c.hit_kv_bytes:.6g}",
            c.pool_kv_bytes,
            "bytes/turn",
            own,
        )
    yield Term(
        "D3",
        "hit rate",
        "c / (c + a)",
        f"{c.context_tokens:g} / ({c.context_tokens:g} + {c.append_tokens:g})",
        c.context_tokens / (c.context_tokens + c.append_tokens),
        "fraction",
        own,
    )
    yield from _prefill(c, model, limits)
    if full:
        yield Term(
            "D5",
            "persisted per turn",
            f"KV of {BLOCK_TOKENS} * floor(T*(a + g)/{BLOCK_TOKENS}) / T tokens",
            f"T = {c.turns_per_session:g}, a = {c.append_tokens:g}, g = {c.output_tokens:g}",
            c.write_back_bytes,
            "bytes/turn",
            own,
        )
    yield from _decode(c, limits)
    if full:
        for name, tokens, size, side in (
            ("prefill", c.append_tokens, c.prefill_collective_bytes, limits.prefill),
            ("decode", c.output_tokens, c.decode_collective_bytes, limits.decode),
        ):
            yield Term(
                "D7",
                f"{name} collectives of a turn",
                "tokens * layers * width * (dispatch + combine bytes) * remote nodes reached",
                f"{tokens:g} tokens, EP {side.engine.ep} over {side.engine.nodes} node(s), "
                f"{a.moe_layers} MoE layers of width {a.dispatch_size}",
                size,
                "bytes/turn",
                f"model {model.name}; node-limited routing, one copy per remote node",
            )


def _prefill(c: ClassDemand, model: Model, limits: Limits) -> Iterator[Term]:
    full = limits.counting == "full"
    rates = limits.prefill.rates
    counts = model.architecture.parameters
    active = counts.body + counts.routed_experts_active if full else model.active_parameters
    yield Term(
        "D2",
        "prefill FLOP, weights",
        "2*N*a + 2*N_head" if full else "2*N_active*a",
        f"2 * {active:.4g} * {c.append_tokens:g}"
        + (f" + 2 * {counts.head_flop_parameters:.4g}" if full else ""),
        c.gemm_flop,
        "FLOP/turn",
        "parameters without embedding tables, counted from the model's fields"
        if full
        else "the maker's stated active parameters",
    )
    pairs = "a*c + a*(a+1)/2 pairs" if full else "a*c pairs"
    yield Term(
        "D2",
        "prefill FLOP, attention",
        f"2*heads*(d_qk + d_v)*layers * {pairs}, at most top-k or window each",
        "; ".join(
            f"{g.name}: {g.layers} layers"
            + (f", {g.heads} heads x ({g.qk_dim} + {g.v_dim})" if g.heads else "")
            + (f", top-{g.top_k_entries}" if g.top_k_entries else "")
            + (", cheaper of absorbed and expanded" if g.latent_dim and full else "")
            for g in model.architecture.layer_groups
        ),
        c.attention_flop,
        "FLOP/turn",
        f"model {model.name}; {PAPER}, Table 1",
    )
    if c.index_flop:
        yield Term(
            "D2",
            "prefill FLOP, indexer",
            "2*index heads*index dim*layers * all pairs",
            "; ".join(
                f"{g.layers} layers, {g.index_heads} x {g.index_dim}"
                for g in model.architecture.layer_groups
                if g.index_heads
            ),
            c.index_flop,
            "FLOP/turn",
            f"model {model.name}",
        )
    yield Term(
        "D4",
        "cache-compute ratio",
        "hit KV bytes / prefill FLOP",
        f"{c.hit_kv_bytes:.5g} / {c.prefill_flop:.5g}",
        c.hit_kv_bytes / 1e9 / (c.prefill_flop / 1e15),
        "GB/PFLOP",
        f"{PAPER}, Table 1",
    )
    yield Term(
        "D2",
        "prefill GPU time",
        "sum over kernels of FLOP / usable rate",
        f"{c.gemm_flop:.4g}/{rates.gemm_flop_per_s:.4g} + {c.attention_flop:.4g}/"
        f"{rates.attention_flop_per_s:.4g} + {c.index_flop:.4g}/{rates.index_flop_per_s:.4g}",
        c.prefill_gpu_s,
        "GPU*s/turn",
        _kernel_sources(limits.prefill.hardware, full),
    )


def _kernel_sources(hardware: Hardware, full: bool) -> str:
    if not full:
        return f"hardware {hardware.name}, datasheet peaks"
    kinds = []
    for name in ("gemm", "attention"):
        source = source_of(f"efficiency.{name}", hardware.sources)
        share = getattr(hardware.efficiency, name)
        kinds.append(f"{name} {share:g} of peak ({source.kind if source else 'no source'})")
    return f"hardware {hardware.name}: {', '.join(kinds)}"


def _decode(c: ClassDemand, limits: Limits) -> Iterator[Term]:
    rate, engine = c.decode, limits.decode.engine
    if not c.output_tokens or math.isinf(rate.tokens_per_s):
        return
    yield Term(
        "D6",
        "decode batch per engine",
        "min(HBM left / KV of a sequence, largest with step time <= TPOT)",
        f"min({short(rate.batch_by_hbm)}, {short(rate.batch_by_tpot)})",
        rate.batch if math.isfinite(rate.batch) else "unlimited",
        "sequences",
        f"{format_quantity(engine.hbm_left_bytes_per_gpu * engine.gpus, 'bytes')} left after "
        f"weights on {engine.gpus} GPUs; TPOT limit {format_quantity(c.tpot_s, 's')}",
    )
    if math.isfinite(rate.step_s):
        bandwidth = format_quantity(limits.decode.rates.hbm_bytes_per_s, "bytes_per_s")
        yield Term(
            "D6",
            "decode step time at that batch",
            "max(weight bytes/HBM rate + batch*KV read/HBM rate, batch*FLOP/rate)",
            f"batch {short(rate.batch)}, {format_quantity(engine.weight_bytes_per_gpu, 'bytes')} "
            f"of weights a GPU at {bandwidth}",
            rate.step_s,
            "s",
            "roofline; no launch overhead, a lower bound of TPOT",
        )
    yield Term(
        "D6",
        "decode GPU time",
        "g * GPUs / (batch / step time)",
        f"{c.output_tokens:g} * {engine.gpus} / {short(rate.tokens_per_s)}",
        c.decode_gpu_s,
        "GPU*s/turn",
        "decode at the largest batch",
    )
