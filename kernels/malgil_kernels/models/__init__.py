"""The kernels in a whole transformers model: a profile says which modules they stand for.

    replaced = use_kernels(model)      # norms, MLPs, attention with rope, residual sums, LoRA
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

from malgil_kernels.models.loss import causal_lm_loss, causal_model
from malgil_kernels.models.modules import (
    GROUPS,
    KERNELS,
    KernelModule,
    activation_of,
    original,
    replacement,
)
from malgil_kernels.models.profiles import ACTIVATIONS, PROFILES, Profile, profile_of
from malgil_kernels.models.projections import put_together
from malgil_kernels.models.quantised import quantise_base
from malgil_kernels.transformers_attention import NAME as ATTENTION

__all__ = [
    "PROFILES",
    "Profile",
    "Replaced",
    "causal_lm_loss",
    "profile_of",
    "quantise_base",
    "use_kernels",
]

log = logging.getLogger("malgil.kernels")


@dataclass(frozen=True)
class Replaced:
    """What `use_kernels` did to a model.

    Attributes:
        counts: class of transformers → how many modules of it were replaced.
        left: class → why it was left alone.
        grouped: blocks whose q, k and v, or gate and up, take one LoRA launch.
        attention_before: what attention was set to; None where it was left.
    """

    model: nn.Module
    counts: dict[str, int]
    left: dict[str, str]
    grouped: int
    attention_before: str | None

    def undo(self) -> None:
        """Puts the plain modules back, with the parameters and children that ours have now."""
        _restore(self.model)
        if self.attention_before is not None:
            causal_model(self.model).set_attn_implementation(self.attention_before)


def use_kernels(model: nn.Module, *, attention: bool = True) -> Replaced:
    """Replaces what the profile of the model's family names; before or after PEFT, in training or not.

    Linear layers with a LoRA adapter of PEFT are computed by `lora_linear`: q, k and v (gate and up) in one
    launch if the adapters are there when this is called and the model then stays on its device, each alone
    otherwise. For the one launch their frozen weights become parts of one storage, with the same values.

    Args:
        model: a causal language model of transformers, or a PEFT model around one; its weights keep their
            values and names.
        attention: set the model's attention to "malgil" too; False leaves it as it is set, any but eager.

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
    grouped = _put_together(model, profile)
    before = None
    if attention:
        before = str(config._attn_implementation)
        causal.set_attn_implementation(ATTENTION)
    for name, why in left.items():
        log.info("%s left alone: %s", name, why)
    return Replaced(model, dict(counts), left, grouped, before)


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


def _put_together(model: nn.Module, profile: Profile) -> int:
    blocks = [module for module in model.modules() if isinstance(module, KernelModule)]
    return sum(
        put_together(block, names)
        for block in blocks
        for part, names in GROUPS.items()
        if profile.is_class(block.plain, part)
    )


def _restore(parent: nn.Module) -> None:
    child: Any
    for name, child in list(parent._modules.items()):
        if isinstance(child, KernelModule):
            child = original(child)
            parent._modules[name] = child
        if child is not None:
            _restore(child)
