"""The attention ops as transformers' attention implementation "malgil".

    import malgil_kernels.transformers_attention
    model.set_attn_implementation("malgil")

Packed rows (position ids that restart, or `cu_seq_lens_q` and its like, as transformers' flash path takes
them), batches padded on one side, decoding with a cache, grouped heads, sliding windows and softcaps, in
training and inference. Examples packed with restarting position ids stay apart also under an attention mask
of ones and with `use_cache`, where transformers' own masks let them leak. A row of padding gives 0.
Registered on import, through `AttentionInterface` and `AttentionMaskInterface`; transformers is not changed.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface

from malgil_kernels.attention import attention, check_tensors, checked_scale
from malgil_kernels.attention.bounds import bounds_mask, bounds_ranges, plain_bounds, within_segments
from malgil_kernels.attention.reference import masked_attention
from malgil_kernels.attention.rule import Ranges, Rule, causal_rule
from malgil_kernels.dispatch import select
from malgil_kernels.paged_attention import paged_attention

NAME = "malgil"
# the parts of transformers.masking_utils that bounds can say
MASKS = {
    "add_offsets_to_mask_function",
    "and_masks",
    "bidirectional_mask_function",
    "causal_mask_function",
    "packed_sequence_compatibility_function",
    "packed_sequence_mask_function",
    "padding_mask_function",
    "remap_positions_for_packed_sequence",
    "sliding_window_overlay",
}
BACKENDS = {
    "sdpa:cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa:efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa:flash": SDPBackend.FLASH_ATTENTION,
    "sdpa:math": SDPBackend.MATH,
}
# what all layers of one pass share, for as long as its key lives
_of_positions: Any = WeakIdKeyDictionary()
_of_bounds: Any = WeakIdKeyDictionary()


def malgil_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | torch.Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] | None = None,
    attention_mask: torch.Tensor | None = None,
    device: torch.device | str = "cpu",
    **_: Any,
) -> torch.Tensor | None:
    """Bounds (batch, 1, queries, 3) of what a batch may see, or None where nothing is padded or packed.

    Raises:
        ValueError: the mask is more than causal, windowed, packed or padded on one side.
        RuntimeError: the padding mask has a hole (on a GPU: an assertion there).
    """
    packs = None
    for part, held in _parts(mask_function):
        if part.__module__ != "transformers.masking_utils" or part.__qualname__.split(".")[0] not in MASKS:
            raise ValueError(
                f"mask {part.__module__}.{part.__qualname__}: attention {NAME!r} knows causal, windowed, "
                'packed and padded masks. Next: set_attn_implementation("sdpa") or ("eager")'
            )
        packs = held.get("packed_sequence_mask", packs)
    if attention_mask is None and packs is None and q_length == kv_length:
        return None
    place = torch.arange(kv_length, dtype=torch.int32, device=device)
    position = (torch.arange(q_length, device=device) + q_offset - kv_offset).to(torch.int32)
    position = position.expand(batch_size, q_length)
    first, last = torch.zeros_like(position), torch.full_like(position, kv_length)
    if attention_mask is not None:
        real = attention_mask.to(device=device, dtype=torch.bool)[:, kv_offset : kv_offset + kv_length]
        real = torch.nn.functional.pad(real, (0, kv_length - real.shape[1]))
        first = real.int().argmax(dim=1, keepdim=True).to(torch.int32)
        last = first + real.sum(dim=1, keepdim=True, dtype=torch.int32)
        torch._assert_async(
            (real == ((place >= first) & (place < last))).all(),
            f"attention_mask has a hole: attention {NAME!r} takes padding at the start or end of a row",
        )
        first, last = first.expand_as(position), last.expand_as(position)
        if q_length == kv_length:  # padding sees nothing
            hidden = (position < first) | (position >= last)
            first, last = first.masked_fill(hidden, 0), last.masked_fill(hidden, 0)
    bounds = torch.stack([first, last, position], dim=-1)[:, None]
    if packs is not None:
        new = torch.diff(packs, dim=1, prepend=packs[:, :1] - 1) != 0
        bounds = within_segments(bounds, new.expand(batch_size, -1))
    return bounds


def _parts(mask: Any) -> Iterator[tuple[Callable[..., Any], dict[str, Any]]]:
    """A mask function and those it is made of, each with the variables it holds."""
    if mask is None:
        return
    cells = (cell.cell_contents for cell in mask.__closure__ or ())
    held = dict(zip(mask.__code__.co_freevars, cells, strict=True))
    yield mask, held
    for value in held.values():
        for inner in value if isinstance(value, tuple) else (value,):
            if hasattr(inner, "__code__"):
                yield from _parts(inner)


def malgil_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    position_ids: torch.Tensor | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    cu_seq_lens_k: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """What a model's attention layer calls.

    Args:
        query: (batch, heads, queries, dim); key and value: (batch, kv_heads, keys, dim).
        attention_mask: what `malgil_mask` gave.
        cu_seq_lens_q, cu_seq_lens_k: where packed examples start and end, of a batch of one row.

    Returns:
        (batch, queries, heads, dim), and no weights.

    Raises:
        ValueError, TypeError: dropout, attention sinks, a position bias, or a tensor that does not fit.
    """
    _refuse(attention_mask, dropout, others)
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    batch, heads, queries, dim = query.shape
    rows = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)  # (batch, rows, heads, dim)
    q, k, v = (x.reshape(-1, *x.shape[2:]) for x in rows)
    check_tensors(q, k, v)
    scale = checked_scale(scaling, softcap, dim)
    if cu_seq_lens_q is not None:
        out = _packed(q, k, v, cu_seq_lens_q, cu_seq_lens_k, batch, causal, sliding_window, softcap, scale)
        return out.view(batch, queries, heads, dim), None
    bounds = _segmented(attention_mask, position_ids, batch, queries, key.shape[2], causal)
    rule = causal_rule(causal, sliding_window)
    training = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    choice = select(
        "attention",
        dtype=query.dtype,
        device=query.device,
        head_dim=dim,
        phase="training" if training else "decoding" if queries == 1 else "prefill",
        packed=bounds is not None,
        length=key.shape[2],
        softcap=softcap is not None,
        window=sliding_window is not None,
    ).implementation
    if choice in BACKENDS:
        return _sdpa(query, key, value, bounds, rule, scale, BACKENDS[choice]), None
    if choice == "triton" and not (queries == 1 and not training):
        out = _by_kernel(q, k, v, bounds, batch, rule, scale, softcap)
        return out.view(batch, queries, heads, dim), None
    if bounds is None:
        bounds = plain_bounds(batch, queries, key.shape[2], query.device)
    if choice == "triton":
        return _decode(*rows, bounds, causal, sliding_window, softcap, scale), None
    masks = bounds_mask(bounds, key.shape[2], rule)
    parts = zip(*rows, masks, strict=True)
    return torch.stack([masked_attention(*part, scale, softcap)[0] for part in parts]), None


def _refuse(attention_mask: torch.Tensor | None, dropout: float, others: dict[str, Any]) -> None:
    if attention_mask is not None and (attention_mask.ndim != 4 or attention_mask.shape[-1] != 3):
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}: attention {NAME!r} takes (batch, keys) "
            'masks of padding. Next: pass one, or set_attn_implementation("sdpa")'
        )
    if dropout:
        raise ValueError(
            f"dropout is {dropout}: attention {NAME!r} has none. Next: set attention_dropout to 0"
        )
    for name in ("s_aux", "position_bias"):
        if others.get(name) is not None:
            raise ValueError(
                f'{name} is given: attention {NAME!r} has none. Next: set_attn_implementation("eager")'
            )


def _segmented(
    bounds: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    batch: int,
    queries: int,
    keys: int,
    causal: bool,
) -> torch.Tensor | None:
    """Bounds cut where position ids restart; once per pass, and without waiting while a graph is captured."""
    if position_ids is None or position_ids.ndim != 2 or not causal or queries != keys or queries == 1:
        return bounds
    capturing = position_ids.is_cuda and torch.cuda.is_current_stream_capturing()
    # what is kept must not outlive the numbers: they may be written in place, also by a graph's replay
    keep = not capturing and not position_ids.is_inference()
    version = position_ids._version if keep else -1
    known: tuple[torch.Tensor | None, int, torch.Tensor | None] = (None, -2, None)
    known = _of_positions.get(position_ids, known)
    if keep and known[0] is bounds and known[1] == version:
        return known[2]
    new = torch.diff(position_ids, dim=1, prepend=position_ids[:, :1] - 1) != 1
    new = torch.cat([torch.ones_like(new[:, :1]), new[:, 1:]], dim=1)
    cut = bounds
    if bounds is not None or capturing or bool(new[:, 1:].any()):
        whole = plain_bounds(batch, queries, keys, new.device) if bounds is None else bounds
        cut = within_segments(whole, new.expand(batch, -1))
    if keep:
        _of_positions[position_ids] = (bounds, version, cut)
    return cut


def _by_kernel(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bounds: torch.Tensor | None,
    batch: int,
    rule: Rule,
    scale: float,
    softcap: float | None,
) -> torch.Tensor:
    """The kernels over the rows of a batch laid end to end; ranges are made once per pass and rule."""
    from malgil_kernels.attention.triton_op import attention_triton, range_attention_triton

    queries, keys = len(q) // batch, len(k) // batch
    if bounds is None:
        row = torch.arange(batch + 1, dtype=torch.int32, device=q.device)
        longest = max(queries, keys)
        out, _ = attention_triton(q, k, v, row * queries, row * keys, longest, rule, scale, softcap)
        return out
    made: dict[tuple[int, Rule], Ranges] = _of_bounds.setdefault(bounds, {})
    if (keys, rule) not in made:
        made[keys, rule] = bounds_ranges(bounds, keys, rule)
    out, _ = range_attention_triton(q, k, v, made[keys, rule], scale, softcap)
    return out


def _packed(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts: torch.Tensor,
    key_starts: torch.Tensor | None,
    batch: int,
    causal: bool,
    window: int | None,
    softcap: float | None,
    scale: float,
) -> torch.Tensor:
    if batch != 1:
        raise ValueError(
            f"cu_seq_lens_q with a batch of {batch}: must be packed into one row. Next: drop one of both"
        )
    starts = starts.to(torch.int32)
    key_starts = starts if key_starts is None else key_starts.to(torch.int32)
    out, _ = attention(
        q, k, v, starts, key_starts, max_seqlen=max(len(q), len(k)), causal=causal, window=window,
        softcap=softcap, scale=scale,
    )  # fmt: skip
    return out


def _decode(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    causal: bool,
    window: int | None,
    softcap: float | None,
    scale: float,
) -> torch.Tensor:
    """One query per row over a cache (batch, keys, kv_heads, dim): a block per row, `keys` long."""
    first, last, position = (x.contiguous() for x in bounds[:, 0, 0].unbind(-1))
    length = torch.minimum(last, position + 1) if causal else last
    table = torch.arange(len(query), dtype=torch.int32, device=query.device)[:, None]
    with torch.no_grad():
        key, value = (x if x.stride(-1) == 1 else x.contiguous() for x in (key, value))
        out = paged_attention(
            query[:, 0].contiguous(), key, value, table, length, first_keys=first, window=window,
            softcap=softcap, scale=scale,
        )  # fmt: skip
    return out[:, None]


def _sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor | None,
    rule: Rule,
    scale: float,
    backend: SDPBackend,
) -> torch.Tensor:
    """PyTorch's own, by `backend` where it can and else by the first that takes the mask."""
    batch, heads, queries, _ = query.shape
    keys = key.shape[2]
    mask = lonely = None
    plain = bounds is None and rule.left is None and (rule.right is None or queries in (1, keys))
    if not plain:
        whole = plain_bounds(batch, queries, keys, query.device) if bounds is None else bounds
        mask = bounds_mask(whole, keys, rule)[:, None]
        lonely = ~mask.any(dim=-1, keepdim=True)
        mask = mask | lonely
    with sdpa_kernel([backend, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH], set_priority=True):
        out = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=plain and rule.right == 0 and queries > 1,
            scale=scale, enable_gqa=heads != key.shape[1],
        )  # fmt: skip
    out = out if lonely is None else out.masked_fill(lonely, 0.0)
    return out.transpose(1, 2)


AttentionInterface.register(NAME, malgil_attention)
AttentionMaskInterface.register(NAME, malgil_mask)
