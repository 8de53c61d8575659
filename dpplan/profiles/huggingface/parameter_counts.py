"""Weights of the modules a decoder is built of: plain counts from plain dimensions.

Biases and norms are counted where the module has them; they are a few parts in ten thousand.
"""

from __future__ import annotations

__all__ = [
    "delta_rule_weights",
    "feed_forward_weights",
    "grouped_query_weights",
    "indexer_weights",
    "latent_attention_weights",
    "mamba2_weights",
]


def grouped_query_weights(
    hidden: int,
    heads: int,
    kv_heads: int,
    qk_dim: int,
    v_dim: int,
    *,
    qkv_bias: bool = False,
    output_bias: bool = False,
    output_gate: bool = False,
    shared_kv: bool = False,
) -> int:
    """Weights of the q, k, v and o projections (MHA, GQA, MQA).

    Parameters
    ----------
    hidden, heads, kv_heads, qk_dim, v_dim : int
        Width of the residual stream, query and KV heads, dimensions of a key and of a value.
    qkv_bias, output_bias : bool
        The projections have biases.
    output_gate : bool
        The query projection is doubled by a gate of the attention's output.
    shared_kv : bool
        There is no value projection: values are made of the keys' projection.

    Returns
    -------
    int
        Parameters of one layer.

    Examples
    --------
    >>> grouped_query_weights(4096, 32, 8, 128, 128)
    41943040
    """
    query = heads * qk_dim * (2 if output_gate else 1)
    key_value = kv_heads * (qk_dim if shared_kv else qk_dim + v_dim)
    weights = hidden * (query + key_value) + heads * v_dim * hidden
    return weights + (query + key_value) * qkv_bias + hidden * output_bias


def latent_attention_weights(
    hidden: int,
    heads: int,
    q_rank: int | None,
    kv_rank: int,
    nope_dim: int,
    rope_dim: int,
    v_dim: int,
    *,
    output_gate: bool = False,
    bias: bool = False,
) -> int:
    """Weights of multi-head latent attention (DeepSeek-V2).

    Parameters
    ----------
    hidden, heads : int
        Width of the residual stream, query heads.
    q_rank : int or None
        Rank of the query's down-projection; None = one full projection.
    kv_rank : int
        Rank of the cached latent.
    nope_dim, rope_dim, v_dim : int
        A head's dimensions: key without and with rotary part, value.
    output_gate : bool
        A projection of full rank gates the attention's output.
    bias : bool
        The down- and output projections have biases.

    Returns
    -------
    int
        Parameters of one layer.

    Examples
    --------
    >>> latent_attention_weights(7168, 128, 1536, 512, 128, 64, 128)  # DeepSeek-V3
    187107328
    """
    qk_dim = nope_dim + rope_dim
    if q_rank is None:
        query = hidden * heads * qk_dim
    else:
        query = hidden * q_rank + q_rank + q_rank * heads * qk_dim + q_rank * bias
    latent = hidden * (kv_rank + rope_dim) + kv_rank + (kv_rank + rope_dim) * bias
    up = kv_rank * heads * (nope_dim + v_dim)
    output = heads * v_dim * hidden * (2 if output_gate else 1) + hidden * bias
    return query + latent + up + output


def indexer_weights(hidden: int, query_width: int, heads: int, head_dim: int) -> int:
    """Weights of DeepSeek's lightning indexer: queries, one key, a weight per head, key norm.

    Parameters
    ----------
    hidden : int
        Width of the residual stream (keys and head weights are made from it).
    query_width : int
        Width of what the queries are made from: the query latent, or `hidden`.
    heads, head_dim : int
        Indexer heads and their dimension.

    Returns
    -------
    int
        Parameters of one layer.

    Examples
    --------
    >>> indexer_weights(7168, 1536, 64, 128)  # DeepSeek-V3.2
    13959424
    """
    return query_width * heads * head_dim + hidden * (head_dim + heads) + 2 * head_dim


def feed_forward_weights(width: int, inner: int, *, gated: bool = True, bias: bool = False) -> int:
    """Weights of one MLP or one expert: up, down and (`gated`) gate matrices.

    Examples
    --------
    >>> feed_forward_weights(7168, 2048)  # one expert of DeepSeek-V3
    44040192
    """
    ups = 2 if gated else 1
    return (ups + 1) * width * inner + (ups * inner + width) * bias


def mamba2_weights(
    hidden: int, heads: int, head_dim: int, groups: int, state: int, kernel: int, *, bias: bool
) -> int:
    """Weights of a Mamba-2 mixer: in and out projections, convolution, A, D, dt and norm.

    Parameters
    ----------
    hidden, heads, head_dim : int
        Width of the residual stream, heads and their dimension.
    groups, state, kernel : int
        Groups sharing B and C, state size, taps of the convolution.
    bias : bool
        The in and out projections have biases.

    Returns
    -------
    int
        Parameters of one layer.

    Examples
    --------
    >>> mamba2_weights(2688, 64, 64, 8, 128, 4, bias=False)  # Nemotron-3 Nano
    38742208
    """
    inner = heads * head_dim
    mixed = inner + 2 * groups * state
    projected = inner + mixed + heads
    projections = hidden * projected + inner * hidden + (projected + hidden) * bias
    return projections + mixed * (kernel + 1) + 3 * heads + inner


def delta_rule_weights(
    hidden: int,
    key_heads: int,
    key_dim: int,
    value_heads: int,
    value_dim: int,
    kernel: int,
    *,
    decay: int,
    gate: int,
) -> int:
    """Weights of a gated delta-rule mixer (gated delta net, Kimi delta attention).

    Parameters
    ----------
    hidden : int
        Width of the residual stream.
    key_heads, key_dim, value_heads, value_dim : int
        Heads and dimensions of keys (and queries) and of values.
    kernel : int
        Taps of the short convolution over queries, keys and values.
    decay, gate : int
        Weights that make the decay and the output gate.

    Returns
    -------
    int
        Parameters of one layer.

    Examples
    --------
    >>> delta_rule_weights(4, 1, 2, 1, 2, 4, decay=4, gate=8)
    74
    """
    keys, values = key_heads * key_dim, value_heads * value_dim
    mixed = 2 * keys + values
    beta = hidden * value_heads
    return hidden * mixed + values * hidden + beta + decay + gate + mixed * kernel + value_dim
