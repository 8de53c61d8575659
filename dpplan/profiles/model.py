"""The model profile: the fields of `config.json` that matter, in their own names, and dtypes.

Fields are read by `huggingface.read_config`, so a profile is understood exactly as a `config.json`
is; what it adds is the precision of weights, cache and arithmetic, and what the maker states.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from dpplan.errors import BadInput
from dpplan.profiles.architecture import Architecture
from dpplan.profiles.huggingface.families import read_config
from dpplan.profiles.schema import Name, PositiveNumber, Sources, Strict, Text

__all__ = [
    "BYTES_PER_ELEMENT",
    "ComputeDtype",
    "Dtype",
    "LinearAttention",
    "Model",
    "SparseAttention",
]

Dtype = Literal["fp32", "bf16", "fp16", "fp8", "fp4", "int4"]
ComputeDtype = Literal["bf16", "fp8", "fp4"]

BYTES_PER_ELEMENT: Final[dict[Dtype, float]] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "fp4": 4.25 / 8,
    "int4": 4.5 / 8,
}
"""Bytes an element takes, with its share of a scale where that is more than a part in a thousand.

fp4 is MXFP4: blocks of 32 elements of 4 bits share a scale of 8 bits. int4 is the packed format of
compressed-tensors: groups of 32 share a scale of 16 bits. fp8 has one fp32 scale per tensor or
block of 128 x 128, which is left out.
"""

_Count = Annotated[int, Field(strict=True)]
_Flag = Annotated[bool, Field(strict=True)]
_Word = Annotated[str, Field(strict=True)]
_Numbers = tuple[_Count, ...]
_Words = tuple[_Word, ...]


class LinearAttention(Strict):
    """`linear_attn_config` of Kimi-Linear and Kimi-K3; layer numbers count from 1."""

    num_heads: _Count | None = None
    head_dim: _Count | None = None
    short_conv_kernel_size: _Count | None = None
    use_full_rank_gate: _Flag | None = None
    kda_layers: _Numbers | None = None
    full_attn_layers: _Numbers | None = None


class SparseAttention(Strict):
    """`sparse_attention_config` of MiniMax-M3."""

    use_sparse_attention: _Flag | None = None
    sparse_attention_freq: _Numbers | None = None
    sparse_disable_index_value: _Numbers | None = None
    sparse_num_index_heads: _Count | None = None
    sparse_index_dim: _Count | None = None
    sparse_topk_blocks: _Count | None = None
    sparse_block_size: _Count | None = None


class ConfigFields(Strict):
    """The union of the fields that the families read; which of them are due, the family says."""

    model_type: Annotated[_Word, Field(examples=["deepseek_v3"])]
    hidden_size: _Count | None = None
    vocab_size: _Count | None = None
    tie_word_embeddings: _Flag | None = None
    num_hidden_layers: _Count | None = None
    # attention: keys and values
    num_attention_heads: _Count | None = None
    num_key_value_heads: _Count | None = None
    head_dim: _Count | None = None
    attention_bias: _Flag | None = None
    layer_types: _Words | None = None
    sliding_window: _Count | None = None
    use_sliding_window: _Flag | None = None
    max_window_layers: _Count | None = None
    attn_output_gate: _Flag | None = None
    global_head_dim: _Count | None = None
    num_global_key_value_heads: _Count | None = None
    attention_k_eq_v: _Flag | None = None
    swa_num_attention_heads: _Count | None = None
    swa_num_key_value_heads: _Count | None = None
    swa_head_dim: _Count | None = None
    swa_v_head_dim: _Count | None = None
    hybrid_layer_pattern: _Numbers | None = None
    add_swa_attention_sink_bias: _Flag | None = None
    add_full_attention_sink_bias: _Flag | None = None
    attention_chunk_size: _Count | None = None
    no_rope_layers: _Numbers | None = None
    no_rope_layer_interval: _Count | None = None
    sparse_attention_config: SparseAttention | None = None
    use_qk_norm: _Flag | None = None
    # attention: latents
    q_lora_rank: _Count | None = None
    kv_lora_rank: _Count | None = None
    qk_nope_head_dim: _Count | None = None
    qk_rope_head_dim: _Count | None = None
    v_head_dim: _Count | None = None
    mla_use_output_gate: _Flag | None = None
    index_n_heads: _Count | None = None
    index_head_dim: _Count | None = None
    index_topk: _Count | None = None
    indexer_types: _Words | None = None
    compress_ratios: _Numbers | None = None
    o_lora_rank: _Count | None = None
    o_groups: _Count | None = None
    # recurrent layers
    linear_attn_config: LinearAttention | None = None
    linear_num_key_heads: _Count | None = None
    linear_key_head_dim: _Count | None = None
    linear_num_value_heads: _Count | None = None
    linear_value_head_dim: _Count | None = None
    linear_conv_kernel_dim: _Count | None = None
    full_attention_interval: _Count | None = None
    layers_block_type: _Words | None = None
    hybrid_override_pattern: _Word | None = None
    mamba_num_heads: _Count | None = None
    mamba_head_dim: _Count | None = None
    mamba_proj_bias: _Flag | None = None
    n_groups: _Count | None = None
    ssm_state_size: _Count | None = None
    conv_kernel: _Count | None = None
    # residual stream
    hc_mult: _Count | None = None
    attn_res_block_size: _Count | None = None
    # feed-forward and experts
    intermediate_size: _Count | None = None
    intermediate_size_mlp: _Count | None = None
    dense_intermediate_size: _Count | None = None
    moe_intermediate_size: _Count | None = None
    mlp_bias: _Flag | None = None
    enable_moe_block: _Flag | None = None
    n_routed_experts: _Count | None = None
    num_experts: _Count | None = None
    num_local_experts: _Count | None = None
    num_experts_per_tok: _Count | None = None
    num_experts_per_token: _Count | None = None
    top_k_experts: _Count | None = None
    n_shared_experts: _Count | None = None
    num_shared_experts: _Count | None = None
    shared_intermediate_size: _Count | None = None
    shared_expert_intermediate_size: _Count | None = None
    moe_shared_expert_intermediate_size: _Count | None = None
    share_expert_dim: _Count | None = None
    moe_latent_size: _Count | None = None
    routed_expert_hidden_size: _Count | None = None
    latent_moe_use_norm: _Flag | None = None
    first_k_dense_replace: _Count | None = None
    moe_layer_freq: _Count | _Numbers | None = None
    moe_layers: _Numbers | None = None
    interleave_moe_layer_step: _Count | None = None
    decoder_sparse_step: _Count | None = None
    mlp_only_layers: _Numbers | None = None
    n_group: _Count | None = None
    topk_group: _Count | None = None
    num_expert_group: _Count | None = None


class Model(ConfigFields):
    """One model: its architecture, the dtypes it is served in, and its maker's parameter counts.

    Examples
    --------
    >>> model = Model(name="tiny", model_type="llama", hidden_size=8, vocab_size=10,
    ...     num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
    ...     intermediate_size=16, kv_dtype="fp8", weight_dtype="bf16", compute_dtype="bf16",
    ...     total_parameters=2020, active_parameters=2020)
    >>> model.architecture.layers, model.kv_element_bytes, model.effective_expert_dtype
    (3, 1.0, 'bf16')
    """

    name: Name
    description: Text = ""
    kv_dtype: Dtype
    """Cached keys, values and latents."""
    index_dtype: Dtype | None = None
    """Cached keys of a sparse-attention indexer; absent = `kv_dtype`."""
    state_dtype: Dtype = "fp32"
    """State of recurrent layers."""
    weight_dtype: Dtype
    """All weights but those of routed experts."""
    expert_dtype: Dtype | None = None
    """Weights of routed experts; absent = `weight_dtype`."""
    compute_dtype: ComputeDtype
    """Precision that the matrix products with weights run at."""
    attention_dtype: ComputeDtype = "bf16"
    """Precision whose FLOP rate the attention's products run at."""
    total_parameters: PositiveNumber
    """All parameters, as the maker states them."""
    active_parameters: PositiveNumber
    """Parameters a token uses, as the maker states them (paper counting takes this one)."""
    sources: Sources = Field(default_factory=dict)

    _architecture: Architecture = PrivateAttr()

    @property
    def architecture(self) -> Architecture:
        """What the layers keep and compute."""
        return self._architecture

    @property
    def effective_index_dtype(self) -> Dtype:
        """`index_dtype`, or `kv_dtype` in its place."""
        return self.index_dtype or self.kv_dtype

    @property
    def effective_expert_dtype(self) -> Dtype:
        """`expert_dtype`, or `weight_dtype` in its place."""
        return self.expert_dtype or self.weight_dtype

    @property
    def kv_element_bytes(self) -> float:
        """Bytes of a cached element."""
        return BYTES_PER_ELEMENT[self.kv_dtype]

    @property
    def index_element_bytes(self) -> float:
        """Bytes of a cached element of an indexer's key."""
        return BYTES_PER_ELEMENT[self.effective_index_dtype]

    @property
    def state_element_bytes(self) -> float:
        """Bytes of an element of a recurrent state."""
        return BYTES_PER_ELEMENT[self.state_dtype]

    @property
    def weight_element_bytes(self) -> float:
        """Bytes of a weight outside the routed experts."""
        return BYTES_PER_ELEMENT[self.weight_dtype]

    @property
    def expert_element_bytes(self) -> float:
        """Bytes of a weight of a routed expert."""
        return BYTES_PER_ELEMENT[self.effective_expert_dtype]

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights, from the derived parameter counts.

        >>> Model(name="tiny", model_type="llama", hidden_size=8, vocab_size=10,
        ...     num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        ...     intermediate_size=16, kv_dtype="fp8", weight_dtype="bf16", compute_dtype="bf16",
        ...     total_parameters=760, active_parameters=760).weight_bytes
        1520.0
        """
        counts = self.architecture.parameters
        others = counts.total - counts.routed_experts
        return (
            others * self.weight_element_bytes + counts.routed_experts * self.expert_element_bytes
        )

    @model_validator(mode="after")
    def _understood(self) -> Self:
        given = ConfigFields.model_fields.keys() & self.model_fields_set
        dumped = self.model_dump(include=set(given))
        fields = {
            key: _without_nulls(dumped[key]) for key in ConfigFields.model_fields if key in given
        }
        try:
            self._architecture, _ = read_config(fields, _WHERE)
        except BadInput as error:
            raise _located(error, dumped) from None
        derived = self._architecture.parameters.total
        faults = []
        if not 0.1 <= self.total_parameters / derived <= 10:
            needed = f"a count near {derived:.3g}, which the fields give, is needed"
            faults.append(_detail(("total_parameters",), needed, self.total_parameters))
        if self.active_parameters > self.total_parameters:
            needed = f"at most total_parameters {self.total_parameters:.4g} is needed"
            faults.append(_detail(("active_parameters",), needed, self.active_parameters))
        if faults:
            raise ValidationError.from_exception_data("Model", faults)
        return self


_WHERE: Final = "profile"


def _without_nulls(value: Any) -> Any:
    """Sections lose their absent fields; a null the profile spells out stays."""
    if isinstance(value, dict):
        return {key: inner for key, inner in value.items() if inner is not None}
    return value


def _detail(path: tuple[str, ...], message: str, value: Any) -> InitErrorDetails:
    kind = PydanticCustomError("architecture", "{message}", {"message": message})
    return InitErrorDetails(type=kind, loc=path, input=value)


def _located(error: BadInput, values: dict[str, Any]) -> ValidationError:
    """The faults of the config reader, each at its key of the profile."""
    details = []
    for fault in error.faults:
        path = tuple(fault.where.removeprefix(f"{_WHERE}: ").split("."))
        unused = fault.cure.startswith("`--ignore-field")
        text = "no such key is needed for this model_type" if unused else fault.needed
        if fault.cure and not unused:
            text += f" ({fault.cure})"
        value: Any = values
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        details.append(_detail(path, text, value))
    return ValidationError.from_exception_data("Model", details)
