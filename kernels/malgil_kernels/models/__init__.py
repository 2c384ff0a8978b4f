"""The kernels in a whole transformers model: a profile says which modules they stand for.

    replaced = use_kernels(model)      # norms, MLPs, attention with rope, residual sums
    loss = causal_lm_loss(model, input_ids, labels)
    replaced.undo()

`dispatch` still chooses per call: on a CPU the references run, and the model computes what it did. Nothing of
transformers is changed: modules of the model are replaced by subclasses of their classes.
"""

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import nn

import malgil_kernels.transformers_attention as attention
from malgil_kernels.models.loss import causal_lm_loss, causal_model
from malgil_kernels.models.modules import (
    KERNELS,
    KernelModule,
    activation_of,
    original,
    replacement,
)
from malgil_kernels.models.profiles import ACTIVATIONS, PROFILES, Profile, profile_of

__all__ = ["PROFILES", "Profile", "Replaced", "causal_lm_loss", "profile_of", "use_kernels"]

log = logging.getLogger("malgil.kernels")


@dataclass(frozen=True)
class Replaced:
    """What `use_kernels` did to a model.

    Attributes:
        counts: class of transformers → how many modules of it were replaced.
        left: class → why it was left alone.
    """

    model: nn.Module
    counts: dict[str, int]
    left: dict[str, str]
    attention_before: str

    def undo(self) -> None:
        """Puts the plain modules back, with the parameters and children that ours have now."""
        _restore(self.model)
        causal_model(self.model).set_attn_implementation(self.attention_before)


def use_kernels(model: nn.Module) -> Replaced:
    """Replaces what the profile of the model's family names; before or after PEFT, in training or not.

    Args:
        model: a causal language model of transformers, or a PEFT model around one; its weights stay where
            they are.

    Raises:
        ValueError: the family has no profile, or kernels are in use already.
        TypeError: there is no transformers model in it.
    """
    causal = causal_model(model)
    config = causal.config
    profile = profile_of(config.model_type)
    if any(isinstance(module, KernelModule) for module in model.modules()):
        raise ValueError("model uses the kernels already. Next: `undo()` of what the first call returned")
    left = {}
    if activation_of(config) not in ACTIVATIONS:
        left[profile.prefix + "MLP"] = (
            f"activation {activation_of(config)!r}: glu has {', '.join(ACTIVATIONS)}"
        )
    counts: Counter[str] = Counter()
    _replace(model, profile, counts, left)
    before: Any = config._attn_implementation
    causal.set_attn_implementation(attention.NAME)
    for name, why in left.items():
        log.info("%s left alone: %s", name, why)
    return Replaced(model, dict(counts), left, str(before))


def _replace(parent: nn.Module, profile: Profile, counts: Counter[str], left: dict[str, str]) -> None:
    for name, child in list(parent._modules.items()):
        if child is None:
            continue
        kind = type(child)
        kernel = next((k for part, k in KERNELS.items() if profile.is_class(kind, part)), None)
        if kernel is not None and kind.__name__ not in left:
            child = replacement(child, kernel, profile)
            parent._modules[name] = child
            counts[kind.__name__] += 1
        _replace(child, profile, counts, left)


def _restore(parent: nn.Module) -> None:
    child: Any
    for name, child in list(parent._modules.items()):
        if isinstance(child, KernelModule):
            child = original(child)
            parent._modules[name] = child
        if child is not None:
            _restore(child)
