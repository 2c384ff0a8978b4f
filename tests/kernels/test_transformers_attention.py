"""Tiny models through attention "malgil": packed, padded and decoded, equal to one by one through "eager"."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig, Qwen2Config
from transformers.masking_utils import chunked_causal_mask_function

pytest.importorskip("triton")

from malgil_kernels.attention.bounds import bounds_mask, bounds_ranges, plain_bounds, within_segments
from malgil_kernels.attention.rule import Rule, causal_rule, visible_mask
from malgil_kernels.testing import TOLERANCE, relative_error
from malgil_kernels.transformers_attention import NAME, malgil_attention, malgil_mask

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "gemma2": Gemma2Config(
        **SIZES, head_dim=16, sliding_window=8, query_pre_attn_scalar=16, attn_logit_softcapping=5.0
    ),
    "mistral": MistralConfig(**SIZES, sliding_window=8),
}
LENGTHS = (5, 19, 1)
EPSILON = 2 * TOLERANCE[torch.float32]  # both sides are float32: a rounding each


@pytest.fixture(params=CONFIGS)
def model(request):
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(CONFIGS[request.param], attn_implementation="eager").to(DEVICE)


@pytest.fixture
def documents():
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(1, 64, (length,), generator=generator).to(DEVICE) for length in LENGTHS]


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    monkeypatch.setenv("MALGIL_KERNELS", "triton")


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


def packed(documents):
    positions = torch.cat([torch.arange(len(x), device=DEVICE) for x in documents])
    return torch.cat(documents)[None], positions[None]


def padded(documents, left):
    ids = torch.zeros(len(documents), max(LENGTHS), dtype=torch.long, device=DEVICE)
    for row, document in zip(ids, documents, strict=True):
        row[slice(-len(document), None) if left else slice(len(document))] = document
    return ids, (ids > 0).long()


def test_packed_rows_equal_documents_one_by_one(model, documents):
    alone = torch.cat([model(x[None], use_cache=False).logits[0] for x in documents])
    weights = torch.randn(alone.shape, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    wanted = gradients(model, (alone * weights).sum())
    model.set_attn_implementation(NAME)
    ids, positions = packed(documents)
    logits = model(ids, position_ids=positions, use_cache=False).logits[0]
    assert relative_error(logits, alone.double()) <= EPSILON
    for name, gradient in gradients(model, (logits * weights).sum()).items():
        assert relative_error(gradient, wanted[name].double()) <= EPSILON, name


@pytest.mark.parametrize(
    "arguments",
    [
        {"use_cache": True},  # the two ways in which transformers' own masks let packed rows leak
        {"attention_mask": torch.ones(1, sum(LENGTHS), dtype=torch.long)},
        {
            "cu_seq_lens_q": torch.tensor([0, *LENGTHS]).cumsum(0).int(),
            "cu_seq_lens_k": torch.tensor([0, *LENGTHS]).cumsum(0).int(),
            "max_length_q": max(LENGTHS),
            "max_length_k": max(LENGTHS),
        },
    ],
    ids=("with a cache", "with a mask of ones", "with cu_seq_lens"),
)
@pytest.mark.parametrize("implementation", ["triton", "reference"])
def test_packed_rows_do_not_leak(documents, arguments, implementation, monkeypatch):
    monkeypatch.setenv("MALGIL_KERNELS", implementation)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(CONFIGS["mistral"], attn_implementation="eager").to(DEVICE)
    moved = {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    ids, positions = packed(documents)
    with torch.no_grad():
        alone = torch.cat([model(x[None]).logits[0] for x in documents])
        model.set_attn_implementation(NAME)
        logits = model(ids, position_ids=positions, **moved).logits[0]
    assert relative_error(logits, alone.double()) <= EPSILON


def test_position_ids_written_in_place_are_read_again(documents):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(CONFIGS["llama"], attn_implementation=NAME).to(DEVICE)
    ids, positions = packed(documents)
    buffer = torch.arange(ids.shape[1], device=DEVICE)[None].clone()
    with torch.no_grad():
        model(ids, position_ids=buffer)
        buffer.copy_(positions)
        again = model(ids, position_ids=buffer).logits
        assert torch.equal(again, model(ids, position_ids=positions.clone()).logits)
    with torch.inference_mode():
        buffer = torch.arange(ids.shape[1], device=DEVICE)[None].clone()
        model(ids, position_ids=buffer)
        buffer.copy_(positions)
        assert torch.equal(model(ids, position_ids=buffer).logits, again)


@pytest.mark.parametrize("left", [True, False], ids=("left", "right"))
def test_padded_batches_train_as_documents_one_by_one(documents, left):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(CONFIGS["gemma2"], attn_implementation="eager").to(DEVICE)
    documents = documents[:2]
    wanted = gradients(model, sum(model(x[None]).logits.square().sum() for x in documents))
    model.set_attn_implementation(NAME)
    ids, mask = padded(documents, left)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    logits = model(ids, attention_mask=mask, position_ids=positions).logits
    found = gradients(model, logits[mask.bool()].square().sum())
    for name, gradient in found.items():
        assert relative_error(gradient, wanted[name].double()) <= EPSILON, name


def test_decoding_with_a_cache_equals_eager(model, documents, monkeypatch):
    """Greedy, left-padded, past the sliding window; the logits of every step are compared."""
    ids, mask = padded(documents, True)
    settings = {
        "attention_mask": mask,
        "max_new_tokens": 3,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    wanted = model.eval().generate(ids, **settings)
    model.set_attn_implementation(NAME)
    found = model.generate(ids, **settings)
    assert torch.equal(found.sequences, wanted.sequences)
    for one, other in zip(found.logits, wanted.logits, strict=True):
        assert relative_error(one, other.double()) <= EPSILON


@pytest.mark.parametrize("backend", ["sdpa:math", "sdpa:efficient"])
def test_sdpa_where_dispatch_says_so(backend, monkeypatch):
    monkeypatch.setattr(
        "malgil_kernels.transformers_attention.select",
        lambda *_, **__: type("C", (), {"implementation": backend}),
    )
    generator = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(2, heads, 9, 16, generator=generator).to(DEVICE) for heads in (4, 2, 2))
    real = torch.ones(2, 9, dtype=torch.bool, device=DEVICE)
    real[1, :4] = False
    for mask in (None, real):
        bounds = malgil_mask(2, 9, 9, attention_mask=mask, device=DEVICE)
        out, _ = malgil_attention(torch.nn.Module(), q, k, v, bounds, sliding_window=3)
        monkeypatch.setenv("MALGIL_KERNELS", "reference")
        rows = [x.transpose(1, 2) for x in (q, k, v)]
        whole = plain_bounds(2, 9, 9, q.device) if bounds is None else bounds
        seen = bounds_mask(whole, 9, causal_rule(True, 3))
        from malgil_kernels.attention.reference import masked_attention

        wanted = torch.stack(
            [masked_attention(*(x[i].double() for x in rows), seen[i], 0.25)[0] for i in (0, 1)]
        )
        assert relative_error(out, wanted) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (4, 9), (1, 9)])
@pytest.mark.parametrize("rule", [Rule(right=0), Rule(left=2, right=0), Rule()], ids=str)
def test_ranges_are_the_mask_in_both_directions(queries, keys, rule):
    bounds = plain_bounds(2, queries, keys, torch.device("cpu"))
    assert torch.equal(bounds_mask(bounds, keys, rule)[1], visible_mask(queries, keys, rule))
    if queries == keys:
        bounds = within_segments(
            bounds, torch.tensor([[1, 0, 0, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 1]]) > 0
        )
    mask = torch.block_diag(*bounds_mask(bounds, keys, rule).int()).bool()
    ranges = bounds_ranges(bounds, keys, rule)
    row, key = torch.arange(2 * queries), torch.arange(2 * keys)
    assert torch.equal((key >= ranges.query_lo[:, None]) & (key < ranges.query_hi[:, None]), mask)
    assert torch.equal((row >= ranges.key_lo[:, None]) & (row < ranges.key_hi[:, None]), mask.T)


def test_what_it_cannot_do_is_refused_by_name():
    x = torch.zeros(1, 2, 3, 16)
    layer = torch.nn.Module()
    with pytest.raises(ValueError, match="attention_mask has shape"):
        malgil_attention(layer, x, x, x, torch.zeros(1, 1, 3, 5))
    with pytest.raises(ValueError, match=r"dropout is 0\.1"):
        malgil_attention(layer, x, x, x, None, dropout=0.1)
    with pytest.raises(ValueError, match="s_aux is given"):
        malgil_attention(layer, x, x, x, None, s_aux=torch.zeros(2))
    with pytest.raises(ValueError, match="chunked_overlay"):
        malgil_mask(1, 3, 3, mask_function=chunked_causal_mask_function(2, torch.zeros(1)))
    with pytest.raises(ValueError, match="cu_seq_lens_q with a batch of 2"):
        y = torch.zeros(2, 2, 3, 16)
        malgil_attention(layer, y, y, y, None, cu_seq_lens_q=torch.tensor([0, 6]))
    with pytest.raises(RuntimeError, match="has a hole"):
        malgil_mask(1, 4, 4, attention_mask=torch.tensor([[1, 0, 1, 1]]))
