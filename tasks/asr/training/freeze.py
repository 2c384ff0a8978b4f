"""Which parts of a recogniser learn: the policies of `train_asr.trainable` and gradual unfreezing.

Works on any encoder with a convolutional `feature_extractor` and a Transformer `encoder.layers` under an
`lm_head`: wav2vec2, HuBERT, data2vec-audio. What learns at a step is a pure function of the settings and
the step, so a resumed training needs no memory of it. Not here: learning rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tasks.errors import SettingsError

Policy = Literal["head", "top_layers", "encoder", "all"]


@dataclass(frozen=True)
class Trainable:
    """What may learn, and from when on.

    `top_layers` counts Transformer layers and is read with that policy alone. With `unfreeze_share` > 0 the
    head learns alone at first; the layers join one by one from the top, the rest of the encoder last, evenly
    over that share of the steps.
    """

    policy: Policy = "all"
    top_layers: int = 1
    unfreeze_share: float = 0.0


class Freezer:
    """Sets `requires_grad` of a model's weights as `trainable` says.

    Raises:
        SettingsError: more top layers are asked for than the encoder has.
    """

    def __init__(self, model: Any, trainable: Trainable, steps: int) -> None:
        self._parts = _parts(model, trainable)
        self._unfreeze_steps = trainable.unfreeze_share * steps
        self._open = 0
        # This also stops transformers from asking for a gradient of the audio itself, which nothing uses:
        # the checkpointing of activations used here (`use_reentrant=False`) needs none.
        model.freeze_feature_encoder()
        for weight in model.parameters():
            weight.requires_grad_(False)

    @property
    def weights(self) -> list[Any]:
        """Every weight that learns sooner or later, from the head down."""
        return [weight for part in self._parts for weight in part]

    def at(self, step: int) -> int:
        """Opens what learns at `step` (from 0); returns how many parts are open, the head being one."""
        below = len(self._parts) - 1
        share = 1.0 if step >= self._unfreeze_steps else step / self._unfreeze_steps
        wanted = 1 + int(below * share)
        for part in self._parts[self._open : wanted]:
            for weight in part:
                weight.requires_grad_(True)
        self._open = wanted
        return wanted


def encoder_of(model: Any) -> Any:
    """The encoder below the CTC head: `wav2vec2`, `hubert` or `data2vec_audio`."""
    return getattr(model, model.base_model_prefix)


def head_of(model: Any) -> list[Any]:
    """Weights of the CTC head; none for a model that is pre-trained without one."""
    return list(model.lm_head.parameters()) if hasattr(model, "lm_head") else []


def _parts(model: Any, trainable: Trainable) -> list[list[Any]]:
    """Weights in the order in which they join: head, layers from the top, the rest."""
    base = encoder_of(model)
    layers = list(base.encoder.layers)
    if trainable.policy == "top_layers" and trainable.top_layers > len(layers):
        raise SettingsError(
            "params.yaml",
            [f"train_asr.top_layers = {trainable.top_layers}: the encoder has {len(layers)} layers"],
            "lower train_asr.top_layers, or set train_asr.trainable to encoder",
        )
    joining = {"head": 0, "top_layers": trainable.top_layers}.get(trainable.policy, len(layers))
    top = [list(layer.parameters()) for layer in layers[::-1][:joining]]
    if top and getattr(model.config, "do_stable_layer_norm", False):
        top[0] = [*top[0], *base.encoder.layer_norm.parameters()]  # it follows the last layer
    head = head_of(model)
    if trainable.policy in ("head", "top_layers"):
        return [head, *top]
    convolutions = {id(weight) for weight in base.feature_extractor.parameters()}
    known = {id(weight) for part in (head, *top) for weight in part}
    rest = [
        weight
        for weight in model.parameters()
        if id(weight) not in known and (trainable.policy == "all" or id(weight) not in convolutions)
    ]
    return [head, *top, rest]
