"""A random two-layer llama with a small byte-level BPE tokenizer, and prepared rows: seconds, not minutes."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tasks.data.grammar import TOOLS, draw
from tasks.data.text import inverse_normalise

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def rows(count: int, seed: int = 3) -> list[dict[str, Any]]:
    """Prepared rows of the built-in grammar."""
    return [
        {
            "id": f"s{number:05d}",
            "text": command.text,
            "written": inverse_normalise(command.text),
            "tool_call": command.tool_call,
            "intent": command.intent,
        }
        for number, command in enumerate(draw(count, seed))
    ]


def write_prepared(folder: Path, *, train: int = 60, validation: int = 8, test: int = 8) -> Path:
    """prepared/llm: three splits and tools.json."""
    folder.mkdir(parents=True, exist_ok=True)
    made = rows(train + validation + test)
    parts = {
        "train": made[:train],
        "validation": made[train : train + validation],
        "test": made[train + validation :],
    }
    for name, part in parts.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "tools.json").write_text(json.dumps(TOOLS, ensure_ascii=False), encoding="utf-8")
    return folder


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE that splits digits as SmolLM2's does, trained on the grammar."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    texts = [row["written"] + json.dumps(row["tool_call"], ensure_ascii=False) for row in rows(200)]
    texts += ["it's 30 min, isn't it? 3000 2024 1234567890 " * 3]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(texts, trainer)
    # only now, so that the vocabulary holds numbers which a wrong pre-tokenizer would use
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        unk_token=SPECIAL[0],
        pad_token=SPECIAL[2],
        chat_template=TEMPLATE,
    )


def write_model(folder: Path, seed: int = 0, *, width: int = 64) -> Path:
    """The model folder, of a hidden size; weights large enough that answers differ from prompt to prompt."""
    words = tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words) + 5,  # padded, as many published models are
        hidden_size=width,
        intermediate_size=width * 3 // 2,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        initializer_range=0.5,  # wide, so that no two tokens are nearly as likely: rounding must not decide
    )
    LlamaForCausalLM(config).to(torch.float16).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
