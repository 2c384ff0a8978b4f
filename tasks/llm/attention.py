"""The attention that keeps packed examples apart, and the loss on a packed row.

The attention is registered through transformers' own extension points (`AttentionInterface`,
`AttentionMaskInterface`); position ids that restart are not enough, since examples then leak into each
other silently unless mask and cache are both off.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from tasks.llm.packing import Pack

PACKED = "malgil_packed"


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    segments: tuple[tuple[int, int], ...],
    prefix: int,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each example and to the shared prefix; neighbours do not exist.

    Args:
        query: (1, heads, tokens, head size); `key` and `value` have (1, key heads, tokens, head size).
        segments, prefix: of the `Pack`.

    Returns:
        (1, tokens, heads, head size), and no weights.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    attend = partial(
        scaled_dot_product_attention, dropout_p=dropout if module.training else 0.0, scale=scaling
    )
    # split rather than slices: the backward pass is then one concatenation
    sizes = [prefix, *(end - start for start, end in segments)]
    queries, keys, values = (torch.split(part, sizes, dim=2) for part in (query, key, value))
    outputs = []
    if prefix:
        outputs.append(attend(queries[0], keys[0], values[0], is_causal=True))
    for own, seen, told in zip(queries[1:], keys[1:], values[1:], strict=True):
        size = own.shape[2]
        mask = torch.ones(size, prefix + size, dtype=torch.bool, device=own.device).tril(prefix)
        seen, told = torch.cat((keys[0], seen), dim=2), torch.cat((values[0], told), dim=2)
        outputs.append(attend(own, seen, told, attn_mask=mask))
    return torch.cat(outputs, dim=2).transpose(1, 2), None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, lambda *_args, **_kwargs: None)


def completion_loss(model: Any, row: Pack, *, kernels: bool = False) -> Tensor:
    """Summed cross-entropy of a row's completion tokens, in float32.

    `model` is the causal model itself (not PEFT's wrapper), loaded with attention `PACKED`. The output
    layer runs on predicting places alone: with a vocabulary of 49,152 that is most of its cost.

    Args:
        kernels: by `malgil_kernels.linear_cross_entropy`, which never holds the logits.
    """
    if kernels:
        from malgil_kernels import linear_cross_entropy

        return linear_cross_entropy(
            _hidden(model, row),
            model.lm_head.weight,
            row.targets,
            reduction="sum",
            max_labels=len(row.targets),
        )
    return cross_entropy(packed_logits(model, row), row.targets, reduction="sum")


def packed_logits(model: Any, row: Pack) -> Tensor:
    """(targets, vocabulary) logits at the predicting places of a row."""
    logits: Tensor = model.lm_head(_hidden(model, row)).float()
    return logits


def _hidden(model: Any, row: Pack) -> Tensor:
    """(targets, hidden): what the output layer reads at the predicting places."""
    hidden: Tensor = model.model(
        input_ids=row.ids[None],
        position_ids=row.positions[None],
        use_cache=False,
        segments=row.segments,
        prefix=row.prefix,
    ).last_hidden_state[0]
    return hidden[row.predicting]
