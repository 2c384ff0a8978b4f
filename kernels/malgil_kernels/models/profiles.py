"""Which classes of transformers a family of decoders is made of, and which kernels compute the same. Data.

A family that is not listed is refused: a norm that adds 1 to its weight, say, looks like one that does not.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Profile:
    """One family.

    Attributes:
        model_type: of the Hugging Face config of the text model.
        prefix: of its classes, as in `LlamaAttention`.
        norm: what `rms_norm` calls the family's variant.
        next_norm: the norm of a decoder layer that follows the sum with the residual stream; with it the two
            are one kernel.
        norms_output: a norm stands between attention and that sum.
    """

    model_type: str
    prefix: str
    norm: Literal["llama", "gemma"] = "llama"
    next_norm: str = "post_attention_layernorm"
    norms_output: bool = False

    def is_class(self, kind: type, name: str) -> bool:
        """Whether `kind` is the family's own class, not one derived from it."""
        return kind.__name__ == self.prefix + name and kind.__module__.startswith("transformers.models.")


PROFILES = {
    profile.model_type: profile
    for profile in (
        Profile("llama", "Llama"),
        Profile("mistral", "Mistral"),
        Profile("qwen2", "Qwen2"),
        Profile("qwen3", "Qwen3"),
        Profile("gemma", "Gemma", norm="gemma"),
        Profile("gemma2", "Gemma2", "gemma", "pre_feedforward_layernorm", norms_output=True),
        Profile("gemma3_text", "Gemma3", "gemma", "pre_feedforward_layernorm", norms_output=True),
    )
}
# what transformers calls an activation: what `glu` calls it
ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}


def profile_of(model_type: str) -> Profile:
    """The profile of a family.

    Raises:
        ValueError: the family is not listed.
    """
    if model_type not in PROFILES:
        raise ValueError(
            f"model_type {model_type!r}: must be one of {', '.join(PROFILES)}. "
            "Next: run the model as it is, or add a profile in malgil_kernels/models/profiles.py"
        )
    return PROFILES[model_type]
