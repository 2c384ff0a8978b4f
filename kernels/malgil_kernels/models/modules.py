"""Modules that compute with the kernels what a transformers module computes, in its place.

Each is a subclass of the module it stands for, made when it is first needed, and takes over that module's
parameters, children and settings as they are: names in the state dict, PEFT's targets and `isinstance` stay.
A call that a kernel cannot serve as the module would (another dtype than the weight's, dropout in attention)
goes to the module's own forward, and that is logged once.
"""

import logging
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from malgil_kernels.add_rms_norm import add_rms_norm
from malgil_kernels.dispatch import DTYPES
from malgil_kernels.glu import glu
from malgil_kernels.models.profiles import ACTIVATIONS, Profile
from malgil_kernels.models.projections import project
from malgil_kernels.rms_norm import rms_norm
from malgil_kernels.rope import rope

log = logging.getLogger("malgil.kernels")
_subclasses: dict[tuple[type, type], type[nn.Module]] = {}


class KernelModule:
    """What all share. `profile` is set on every instance."""

    profile: Profile
    plain: type[nn.Module]  # the class that it stands for


class KernelRMSNorm(KernelModule):
    """`rms_norm`."""

    weight: torch.Tensor

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(..., hidden) to (..., hidden)."""
        if not fits(hidden_states, self.weight):
            return own_forward(self, "a norm whose weight has another dtype", hidden_states)  # type: ignore[no-any-return]
        return rms_norm(hidden_states, self.weight, eps_of(self), self.profile.norm)


class KernelMLP(KernelModule):
    """Gate and up in one kernel, `glu`; LoRA on its layers by `lora_linear`."""

    config: Any

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., hidden) to (..., hidden)."""
        module: Any = self
        gate, up = project(module, GROUPS["MLP"], x)
        if not fits(gate, up):
            return own_forward(self, "a dtype without kernel", x)  # type: ignore[no-any-return]
        (out,) = project(module, ("down_proj",), glu(gate, up, ACTIVATIONS[activation_of(self.config)]))
        return out


class KernelAttention(KernelModule):
    """Queries and keys rotated in one launch, `rope`; attention by transformers' interface.

    LoRA on its layers by `lora_linear`.
    """

    config: Any
    training: bool
    layer_idx: int
    head_dim: int

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """hidden_states (batch, tokens, hidden); returns the same shape, and no weights."""
        m: Any = self
        interface = ALL_ATTENTION_FUNCTIONS.get(self.config._attn_implementation)
        if interface is None or (self.training and m.attention_dropout):
            return own_forward(  # type: ignore[no-any-return]
                self,
                "eager attention, or dropout in it",
                hidden_states,
                position_embeddings,
                attention_mask,
                past_key_values=past_key_values,
                **kwargs,
            )
        shape = hidden_states.shape[:-1]
        query, key, value = (
            projected.view(*shape, -1, self.head_dim)
            for projected in project(m, GROUPS["Attention"], hidden_states)
        )
        if hasattr(self, "q_norm"):  # Qwen3, Gemma 3
            query, key = m.q_norm(query), m.k_norm(key)
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))  # (batch, heads, tokens, dim)
        cos, sin = (table[..., : table.shape[-1] // 2] for table in position_embeddings)
        query, key = rope(query, key, cos, sin)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        options = {
            # of the layer, or (Mistral) of all
            "sliding_window": getattr(self, "sliding_window", getattr(self.config, "sliding_window", None)),
            "softcap": getattr(self, "attn_logit_softcapping", None),
        }
        given = {name: value for name, value in options.items() if value is not None}
        out, weights = interface(
            m, query, key, value, attention_mask, dropout=0.0, scaling=m.scaling, **given, **kwargs
        )
        (out,) = project(m, ("o_proj",), out.reshape(*shape, -1).contiguous())
        return out, weights


class KernelDecoderLayer(KernelModule):
    """The sum with the residual stream and the norm behind it in one kernel, `add_rms_norm`."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(batch, tokens, hidden) to (batch, tokens, hidden)."""
        layer: Any = self
        norm = getattr(layer, self.profile.next_norm)
        if not fits(hidden_states, norm.weight) or args:
            return own_forward(self, "a norm whose weight has another dtype", hidden_states, *args, **kwargs)  # type: ignore[no-any-return]
        attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **kwargs)
        if self.profile.norms_output:
            attended = layer.post_attention_layernorm(attended)
        normed, stream = add_rms_norm(attended, hidden_states, norm.weight, eps_of(norm), self.profile.norm)
        found = layer.mlp(normed)
        if self.profile.norms_output:
            found = layer.post_feedforward_layernorm(found)
        return stream + found  # type: ignore[no-any-return]


# the layers of a block that read the same input
GROUPS = {"Attention": ("q_proj", "k_proj", "v_proj"), "MLP": ("gate_proj", "up_proj")}
KERNELS: dict[str, type[KernelModule]] = {
    "RMSNorm": KernelRMSNorm,
    "MLP": KernelMLP,
    "Attention": KernelAttention,
    "DecoderLayer": KernelDecoderLayer,
}


def fits(x: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether both are of one dtype for which there is a kernel."""
    return x.dtype == other.dtype and x.dtype in DTYPES


def eps_of(norm: Any) -> float:
    """The constant that the families' norms call by two names."""
    return float(norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps)


def activation_of(config: Any) -> str:
    """Name of the MLP's activation, which the families call by two names."""
    return str(getattr(config, "hidden_activation", None) or config.hidden_act)


def own_forward(module: Any, why: str, *args: Any, **kwargs: Any) -> Any:
    """The forward of the class that `module` stands for; the reason is logged once."""
    _log_once(module.plain.__name__, why)
    return module.plain.forward(module, *args, **kwargs)


@lru_cache(maxsize=256)
def _log_once(name: str, why: str) -> None:
    log.info("%s: transformers' own forward (%s)", name, why)


def replacement(plain: nn.Module, kernel: type[KernelModule], profile: Profile) -> nn.Module:
    """A module of `kernel` with everything that `plain` holds; `plain` itself is not changed."""
    new = _with_class(plain, _subclass(kernel, type(plain)))
    new.profile = profile  # type: ignore[assignment]
    return new


def original(module: Any) -> nn.Module:
    """The plain module again, with the children that it has now."""
    plain = _with_class(module, module.plain)
    plain.__dict__.pop("profile", None)
    return plain


def _subclass(kernel: type[KernelModule], plain: type[nn.Module]) -> type[nn.Module]:
    if (kernel, plain) not in _subclasses:
        _subclasses[kernel, plain] = type(f"Kernel{plain.__name__}", (kernel, plain), {"plain": plain})
    return _subclasses[kernel, plain]


def _with_class(module: nn.Module, kind: type[nn.Module]) -> nn.Module:
    new: nn.Module = kind.__new__(kind)
    new.__dict__.update(module.__dict__)
    # its own table of children: those of ours are replaced in ours alone
    new.__dict__["_modules"] = dict(module._modules)
    return new
