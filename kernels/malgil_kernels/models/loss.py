"""The loss of a causal language model without its logits: the body, then `linear_cross_entropy`."""

from typing import Any

import torch

from malgil_kernels.linear_cross_entropy import linear_cross_entropy


def causal_lm_loss(
    model: Any,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    num_items: int | torch.Tensor | None = None,
    max_labels: int | None = None,
    **body: Any,
) -> torch.Tensor:
    """Mean cross-entropy of the next tokens, as `model(input_ids, labels=labels).loss`.

    Args:
        model: a causal model of transformers, also inside a PEFT model.
        input_ids: (batch, tokens).
        labels: (batch, tokens), not shifted; -100 counts for nothing and costs nothing.
        num_items: what the sum is divided by instead of the labels that count, under gradient accumulation.
        max_labels: as in `linear_cross_entropy`.
        body: attention_mask, position_ids and what else the model's body takes.

    Returns:
        The loss, a scalar in float32.

    Raises:
        ValueError: the output layer is no plain matrix (it has a bias or an adapter).
    """
    causal = causal_model(model)
    head = causal.get_output_embeddings()
    if type(head) is not torch.nn.Linear or getattr(head, "bias", None) is not None:
        raise ValueError(
            f"output layer {type(head).__name__}: must be a Linear without bias and adapter. "
            "Next: take model(...).loss"
        )
    hidden = causal.base_model(input_ids=input_ids, use_cache=False, **body).last_hidden_state
    return linear_cross_entropy(
        hidden[:, :-1],
        head.weight,
        labels[:, 1:],
        softcap=getattr(causal.config, "final_logit_softcapping", None),
        num_items=num_items,
        max_labels=max_labels,
    )


def causal_model(model: torch.nn.Module) -> Any:
    """The outermost transformers model with an output layer in `model`.

    Raises:
        TypeError: there is none.
    """
    from transformers import PreTrainedModel

    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            found: Any = module
            if found.get_output_embeddings() is not None:
                return found
    raise TypeError(
        f"model is {type(model).__name__}: must be or hold a transformers model with an output layer. "
        "Next: pass an AutoModelForCausalLM"
    )
