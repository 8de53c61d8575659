"""Write a model profile from a `config.json`: the fields that matter, dtypes, derived counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from dpplan.errors import BadInput, Fault
from dpplan.profiles.architecture import ParameterCounts
from dpplan.profiles.huggingface.families import read_config
from dpplan.profiles.model import ComputeDtype, Dtype

__all__ = ["import_model", "read_dtypes", "write_profile"]

_TORCH_DTYPES: Final[dict[str, Dtype]] = {
    "float32": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
    "float8_e4m3fn": "fp8",
}


def import_model(
    config: Mapping[str, Any],
    name: str,
    *,
    where: str = "config.json",
    ignore: Collection[str] = (),
    description: str = "",
    kv_dtype: Dtype = "fp8",
    weight_dtype: Dtype | None = None,
    expert_dtype: Dtype | None = None,
    compute_dtype: ComputeDtype | None = None,
    total_parameters: float | None = None,
    active_parameters: float | None = None,
    reference: str | None = None,
    url: str | None = None,
) -> str:
    """YAML text of a model profile, from the model's `config.json`.

    Parameters
    ----------
    config : Mapping[str, Any]
        The file's content.
    name : str
        Name of the profile.
    where : str
        What messages call the file.
    ignore : collection of str
        Unknown fields that the user vouches for.
    description : str
        One line for readers.
    kv_dtype : str
        Precision of the cache: an engine's choice, so an assumption of the profile.
    weight_dtype, expert_dtype, compute_dtype : str, optional
        Precisions in place of those that `torch_dtype` and `quantization_config` give.
    total_parameters, active_parameters : float, optional
        What the maker states; absent = derived from the fields.
    reference, url : str, optional
        Where the file comes from.

    Returns
    -------
    str
        A profile that `Model` reads.

    Raises
    ------
    BadInput
        With every field that is not understood.

    Examples
    --------
    >>> config = dict(model_type="llama", hidden_size=8, vocab_size=10, num_hidden_layers=3,
    ...               num_attention_heads=2, num_key_value_heads=1, intermediate_size=16,
    ...               torch_dtype="bfloat16")
    >>> print(import_model(config, "tiny").splitlines()[1])
    model_type: llama
    """
    architecture, fields = read_config(config, where, ignore)
    dtypes = read_dtypes(config, where, weight_dtype=weight_dtype)
    stated = {"total_parameters": total_parameters, "active_parameters": active_parameters}
    counts = architecture.parameters
    derived = {"total_parameters": counts.total, "active_parameters": counts.active}
    profile: dict[str, Any] = {"name": name}
    if description:
        profile["description"] = description
    profile |= _readable(fields)
    profile["kv_dtype"] = kv_dtype
    state = _state_dtype(config)
    if any(group.state_elements for group in architecture.layer_groups):
        profile["state_dtype"] = state or "fp32"
    profile["weight_dtype"] = dtypes["weight_dtype"]
    experts = expert_dtype or (dtypes["expert_dtype"] if weight_dtype is None else None)
    if architecture.moe_layers and experts and experts != dtypes["weight_dtype"]:
        profile["expert_dtype"] = experts
    profile["compute_dtype"] = compute_dtype or dtypes["compute_dtype"]
    profile["attention_dtype"] = "bf16"
    for key, value in stated.items():
        profile[key] = float(f"{derived[key]:.5g}" if value is None else value)

    default = {"kind": "datasheet", "reference": reference or f"{where} of {name}"}
    if url:
        default["url"] = url
    sources: dict[str, dict[str, str]] = {"default": default}
    sources["kv_dtype"] = _source("assumed", "an engine's choice; the file does not say")
    if "state_dtype" in profile and not state:
        sources["state_dtype"] = _source("assumed", "the state is accumulated in fp32")
    for key, given in (
        ("weight_dtype", weight_dtype),
        ("expert_dtype", expert_dtype),
        ("compute_dtype", compute_dtype),
    ):
        if given is not None and key in profile:
            sources[key] = _source("assumed", "given on import, not by the file")
    if compute_dtype is None:
        note = "weights and activations both in fp8 or narrower run in fp8, all else in bf16"
        sources["compute_dtype"] = _source("derived", note)
    sources["attention_dtype"] = _source("assumed", "attention kernels multiply in bf16")
    for key, value in stated.items():
        if value is None:
            sources[key] = _source("derived", _counted(counts))
    profile["sources"] = sources
    return write_profile(profile)


def _source(kind: str, reference: str) -> dict[str, str]:
    return {"kind": kind, "reference": reference}


def _counted(counts: ParameterCounts) -> str:
    tables = "the embedding, tied, once" if counts.tied_embeddings else "both embeddings"
    return f"from the fields, {tables} counted, MTP layers and vision or audio towers not"


def _readable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as a profile holds them: no nulls, but for the ranks whose null means "none"."""
    readable: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, Mapping):
            readable[key] = {inner: item for inner, item in value.items() if item is not None}
        elif value is not None or key == "q_lora_rank":
            readable[key] = value
    section = readable.get("linear_attn_config")
    if section:
        section.pop("gate_lower_bound", None)
    section = readable.get("sparse_attention_config")
    if section:
        for key in ("sparse_init_block", "sparse_local_block", "sparse_score_type"):
            section.pop(key, None)
    return readable


def _language_model(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def _state_dtype(config: Mapping[str, Any]) -> Dtype | None:
    text = _language_model(config)
    value = text.get("mamba_ssm_dtype") or text.get("mamba_ssm_cache_dtype")
    return _TORCH_DTYPES.get(value) if isinstance(value, str) else None


def read_dtypes(
    config: Mapping[str, Any], where: str = "config.json", *, weight_dtype: Dtype | None = None
) -> dict[str, Any]:
    """Precision of weights, routed experts and matrix products, from the fields that say so.

    Parameters
    ----------
    config : Mapping[str, Any]
        The content of a `config.json`.
    where : str
        What messages call the file.
    weight_dtype : str, optional
        The weights' precision, in place of what the file says.

    Returns
    -------
    dict
        `weight_dtype`, `expert_dtype`, `compute_dtype`.

    Raises
    ------
    BadInput
        If the file names no precision, or one that is not understood.

    Examples
    --------
    >>> read_dtypes({"torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"}})
    {'weight_dtype': 'fp8', 'expert_dtype': 'fp8', 'compute_dtype': 'fp8'}
    """
    if weight_dtype is not None:
        return _dtypes(weight_dtype, weight_dtype, "bf16" if _bytes_wide(weight_dtype) else "fp8")
    text = _language_model(config)
    quantization = text.get("quantization_config", config.get("quantization_config"))
    if quantization is None:
        base = _base_dtype(config, where)
        return _dtypes(base, base, "fp8" if base == "fp8" else "bf16")
    spot = f"{where}: quantization_config"
    if not isinstance(quantization, Mapping):
        raise BadInput(Fault(spot, "a mapping of keys to values is needed", str(quantization)[:60]))
    method = quantization.get("quant_method")
    if method == "fp8":
        experts: Dtype = "fp4" if text.get("expert_dtype") == "fp4" else "fp8"
        return _dtypes("fp8", experts, "fp8")
    if method == "mxfp4":  # gpt-oss: experts alone, multiplied in the activations' precision
        return _dtypes("bf16", "fp4", "bf16")
    if method == "compressed-tensors":
        return _compressed_tensors(quantization, _base_dtype(config, where), spot)
    needed = "fp8, mxfp4 or compressed-tensors is needed"
    cure = "give the weights' precision, for example --weight-dtype fp8"
    raise BadInput(Fault(f"{spot}.quant_method", needed, str(method)[:60], cure))


def _dtypes(weight: Dtype, expert: Dtype, compute: ComputeDtype) -> dict[str, Any]:
    return {"weight_dtype": weight, "expert_dtype": expert, "compute_dtype": compute}


def _bytes_wide(dtype: Dtype) -> bool:
    return dtype in ("fp32", "bf16", "fp16", "int4")


def _base_dtype(config: Mapping[str, Any], where: str) -> Dtype:
    text = _language_model(config)
    places = [(part, key) for part in (text, config) for key in ("torch_dtype", "dtype")]
    value = next((part[key] for part, key in places if part.get(key) is not None), None)
    name = value.removeprefix("torch.") if isinstance(value, str) else ""
    if name not in _TORCH_DTYPES:
        needed = f"one of {', '.join(_TORCH_DTYPES)} is needed"
        cure = "give the weights' precision, for example --weight-dtype bf16"
        got = "nothing" if value is None else str(value)[:60]
        raise BadInput(Fault(f"{where}: torch_dtype", needed, got, cure))
    return _TORCH_DTYPES[name]


def _compressed_tensors(quantization: Mapping[str, Any], base: Dtype, spot: str) -> dict[str, Any]:
    """Weights that no `ignore` entry names take the precision of the one group there is."""
    groups = quantization.get("config_groups")
    group = next(iter(groups.values())) if isinstance(groups, Mapping) and len(groups) == 1 else {}
    group = group if isinstance(group, Mapping) else {}
    weights = group.get("weights")
    weights = weights if isinstance(weights, Mapping) else {}
    known: dict[tuple[object, object], Dtype] = {
        (4, "int"): "int4",
        (4, "float"): "fp4",
        (8, "float"): "fp8",
    }
    bits, kind = weights.get("num_bits"), weights.get("type")
    dtype = known.get((bits, kind)) if isinstance(bits, int) and isinstance(kind, str) else None
    ignored = quantization.get("ignore") or []
    patterns = ignored if isinstance(ignored, (list, tuple)) else []
    if dtype is None or not all(isinstance(pattern, str) for pattern in patterns):
        needed = "one group of int4, fp4 or fp8 weights is needed"
        got = f"{bits} bits of type {kind}"
        cure = "give the weights' precision, for example --weight-dtype int4"
        raise BadInput(Fault(f"{spot}.config_groups", needed, got[:60], cure))
    # Entries are names or regular expressions; what they are about is looked at, none is run.
    attention = any("self_attn" in pattern for pattern in patterns)
    routed = any("experts" in pattern.replace("shared_experts", "") for pattern in patterns)
    rest, experts = (base if attention else dtype), (base if routed else dtype)
    both = group.get("input_activations") is not None and dtype != "int4"
    return _dtypes(rest, experts, "fp8" if both else "bf16")


def write_profile(profile: Mapping[str, Any]) -> str:
    r"""YAML text of a profile: one key a line, lists and leaf mappings in a line of their own.

    >>> write_profile({"name": "tiny", "layers": [1, 2], "total_parameters": 671e9})
    'name: tiny\nlayers: [1, 2]\ntotal_parameters: 671.0e+9\n'
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """Lists in flow style, large counts with an exponent."""

    def sequence(dumper: yaml.SafeDumper, items: Any) -> yaml.Node:
        return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)

    def number(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
        power = next((power for power in (12, 9, 6) if abs(value) >= 10.0**power), 0)
        text = f"{value / 10.0**power:.9g}"
        text = text if "." in text else f"{text}.0"
        text += f"e+{power}" if power else ""
        return dumper.represent_scalar("tag:yaml.org,2002:float", text)

    Dumper.add_representer(list, sequence)
    Dumper.add_representer(tuple, sequence)
    Dumper.add_representer(float, number)
    text: str = yaml.dump(
        dict(profile), Dumper=Dumper, sort_keys=False, width=100, allow_unicode=True
    )
    return text
