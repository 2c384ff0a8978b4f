"""The architecture registry: what must be known about a family to tune and to convert it.

A family that is not listed is refused with a clear message rather than guessed at: the wrong row order
of q and k, say, gives a GGUF that loads and talks nonsense.
"""

from dataclasses import dataclass

from tasks.errors import ModelError


@dataclass(frozen=True)
class Profile:
    """One family of decoders.

    Attributes:
        model_type: `model_type` of the Hugging Face config.
        gguf_arch: name of llama.cpp's architecture, also the prefix of its metadata keys.
        lora_targets: the linear layers of a block that get an adapter: all of them.
        permutes_qk: llama.cpp keeps the rows of q and k interleaved for its rotary embedding, Hugging
            Face keeps them in halves.
    """

    model_type: str
    gguf_arch: str
    lora_targets: tuple[str, ...]
    permutes_qk: bool


LLAMA = Profile(
    model_type="llama",
    gguf_arch="llama",
    lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    permutes_qk=True,
)
PROFILES = {profile.model_type: profile for profile in (LLAMA,)}


def profile_of(model_type: str) -> Profile:
    """The profile of a family.

    Raises:
        ModelError: the family is not in the registry.
    """
    if model_type not in PROFILES:
        raise ModelError(
            f"model_type {model_type!r}",
            f"no profile for it; known: {', '.join(PROFILES)}",
            "choose a base model of a known family, or add a profile in tasks/llm/profiles.py",
        )
    return PROFILES[model_type]
