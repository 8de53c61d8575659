"""What a transformer's layers keep and compute: plain numbers, no names of models.

A `config.json` says which modules a model has; `Architecture` says what those modules mean for
bytes and FLOP. Everything in `dpplan.demand` is computed from these numbers alone, so a new kind
of attention is a new way of filling in a `LayerGroup`, not a new branch in the physics.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Architecture", "LayerGroup", "ParameterCounts"]


@dataclass(frozen=True)
class LayerGroup:
    """Layers of one model that store and read their context alike.

    A layer may keep three things, any of which may be absent: *entries* that grow with the context
    (a K and V pair, an MLA latent, a compressed block), a raw sliding *window*, and a recurrent
    *state* of constant size. Element counts are per layer and for all KV heads together.
    """

    name: str
    """What the layers are, in words: "MLA + indexer", "sliding window 128", "Mamba-2"."""
    layers: int
    """Number of such layers (MTP layers are not counted: they are not run without speculation)."""

    kv_elements_per_entry: float = 0.0
    """Elements of the KV dtype in one cached entry: 2*kv_heads*head_dim, or 512+64 for MLA."""
    tokens_per_entry: int = 1
    """Context tokens one entry stands for: 1, or the compression ratio (DeepSeek-V4: 4 or 128)."""
    index_elements_per_entry: float = 0.0
    """Elements of the index dtype in one entry: the sparse-attention indexer's key."""

    window_tokens: int = 0
    """Most recent tokens kept raw beside (or instead of) the entries; 0 = no window."""
    window_kv_elements_per_token: float = 0.0
    """Elements of the KV dtype per token of the window."""

    heads: int = 0
    """Query heads; 0 = no softmax attention (a recurrent layer)."""
    qk_dim: int = 0
    """Multiply-adds per query-key pair and head in the score (MLA: absorbed form, rank + rope)."""
    v_dim: int = 0
    """Multiply-adds per query-key pair and head in the weighted sum (MLA: absorbed form, rank)."""
    kv_heads: int = 1
    """KV heads that tensor parallelism can split; 1 = every rank of a TP group holds all of it."""
    top_k_entries: int | None = None
    """A query attends to at most this many entries; None = all of them."""
    index_heads: int = 0
    """Heads of the indexer that scores all entries to pick the top k; 0 = none."""
    index_dim: int = 0
    """Dimension of an indexer head."""

    latent_dim: int = 0
    """MLA: rank of the cached latent that the expanded form projects up; 0 = no expanded form."""
    expanded_qk_dim: int = 0
    """MLA expanded form: dimension of a head's query and key (nope + rope)."""
    expanded_up_dim: int = 0
    """MLA expanded form: elements per head that one latent is projected up to (nope + v)."""
    expanded_v_dim: int = 0
    """MLA expanded form: dimension of a head's value."""

    state_elements: float = 0.0
    """Elements of the state dtype a recurrent layer keeps per sequence (matrix state)."""
    conv_state_elements: float = 0.0
    """Elements of the activation dtype (2 bytes) its short convolution keeps per sequence."""
    recurrent_flop_per_token: float = 0.0
    """FLOP per token of the state update and read-out, beyond the weights' 2 FLOP/parameter."""


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters by what they cost. Counts exclude MTP layers and vision or audio towers."""

    input_embedding: float
    """Token embedding table: looked up, not multiplied."""
    output_head: float
    """LM head, multiplied once per token whose logits are wanted; 0 extra when tied."""
    routed_experts: float
    """All routed experts of all MoE layers."""
    routed_experts_active: float
    """Routed experts one token passes through, all MoE layers."""
    body: float
    """Everything else that every token passes through (attention, shared experts, dense FFN...)."""
    tied_embeddings: bool = False
    """The LM head shares the input table (its FLOP count, its bytes don't count twice)."""

    @property
    def total(self) -> float:
        """All parameters; a tied table once."""
        return self.input_embedding + self.output_head + self.routed_experts + self.body

    @property
    def active(self) -> float:
        """Parameters one token uses, both embeddings counted as in `total`."""
        return self.input_embedding + self.output_head + self.routed_experts_active + self.body

    @property
    def head_flop_parameters(self) -> float:
        """Parameters multiplied when a token's logits are computed."""
        return self.input_embedding if self.tied_embeddings else self.output_head


@dataclass(frozen=True)
class Architecture:
    """A decoder-only language model as the planner sees it."""

    layer_groups: tuple[LayerGroup, ...]
    hidden_size: int
    vocab_size: int
    parameters: ParameterCounts
    moe_layers: int = 0
    """Layers with routed experts; 0 = dense."""
    routed_experts: int = 0
    """Routed experts per MoE layer."""
    experts_per_token: int = 0
    """Routed experts chosen per token and MoE layer."""
    dispatch_size: int = 0
    """Width of the vector sent to an expert: hidden_size, or the latent MoE size."""
    expert_groups: int = 1
    """Groups the router divides the experts into (`n_group`)."""
    expert_groups_per_token: int = 1
    """Groups a token may reach (`topk_group`): node-limited routing."""

    @property
    def layers(self) -> int:
        """Layers of all groups (attention and recurrent)."""
        return sum(group.layers for group in self.layer_groups)
