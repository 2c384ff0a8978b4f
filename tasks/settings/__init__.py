"""Every setting of the pipeline: its type, its bounds, its unit and a sentence on what it does.

One frozen class per section of params.yaml. No values here: those stand in params.yaml, once. Loading,
overriding and reporting mistakes is `tasks.params`.
"""

from typing import Any, Literal

from pydantic import Field

from tasks.settings.llm import (
    BaseLlm,
    ConvertLlm,
    EvaluateLlm,
    EvaluateRoad,
    LlmTraining,
    PretrainLlm,
    QuantiseLlm,
    TrainLlm,
    VerifyLlm,
)
from tasks.settings.section import Counts, Names, Numbers, Section, setting

__all__ = [
    "SECTIONS",
    "BaseLlm",
    "ConvertLlm",
    "Corpus",
    "Decide",
    "EmbedAsr",
    "EvaluateAsr",
    "EvaluateLlm",
    "EvaluateRoad",
    "ExportAsr",
    "LanguageModelAsr",
    "LlmTraining",
    "Params",
    "Prepare",
    "Pretrain",
    "PretrainLlm",
    "Publish",
    "QuantiseLlm",
    "Registry",
    "Section",
    "StudyAsr",
    "TrainAsr",
    "TrainLlm",
    "Validate",
    "VerifyLlm",
]


class Corpus(Section):
    """The built-in synthetic corpus, or speech of the user's own."""

    source: Literal["builtin", "manifest", "folder", "hub"] = setting(
        "make the built-in corpus, or read the setting of this name", "–"
    )
    manifest: str = setting("table of your own recordings: .parquet, .csv, .tsv, .jsonl or .json", "path")
    folder: str = setting("folder of your own recordings with their transcripts", "path")
    hub: str = setting("data set: a Hub id, `id@revision` to pin it, or a local folder", "path or id")
    audio_column: str = setting("your column of the audio; empty: looked for under the usual names", "–")
    transcript_column: str = setting("the same for what is said", "–")
    speaker_column: str = setting("the same for who says it", "–")
    split_column: str = setting("the same for the split", "–")
    readings: str = setting("your table of words and how they are said; empty for none", "path")
    marks: Literal["marks-1", "none"] = setting(
        "how marks of transcribers (noise, breath, pairs, anonymised names) are read in your transcripts", "–"
    )
    dual_side: Literal["spoken", "written"] = setting(
        "which side of a dual transcription `(3개)/(세 개)` is taken", "–"
    )
    fillers: Literal["keep", "remove"] = setting("what becomes of marked fillers (`어/`, `(FP:음)`)", "–")
    seed: int = setting("seed of sentences, voices, noise and silence", "–", ge=0)
    train_sentences: int = setting("distinct sentences in the train split", "sentences", ge=8)
    validation_sentences: int = setting("distinct sentences in the validation split", "sentences", ge=4)
    test_sentences: int = setting("distinct sentences in each of the two test splits", "sentences", ge=4)
    train_utterances: int = setting("spoken training utterances, joined ones included", "utterances", ge=8)
    test_utterances: int = setting("utterances in each of the two test splits", "utterances", ge=4)
    ood_utterances: int = setting(
        "utterances of the out-of-domain test split; 0: no such split", "utterances", ge=0, le=2000
    )
    voices: int = setting("training voices used, from the start of the fixed list", "voices", ge=1)
    unseen_voices: int = setting("voices kept for test_voices alone", "voices", ge=1)
    joined_share: float = setting("training utterances of two to four sentences", "fraction", ge=0, le=1)
    clean_share: float = setting("utterances without added noise", "fraction", ge=0, le=1)
    snr_db: Numbers = setting("signal-to-noise ratios of the others, drawn evenly", "dB")
    max_silence_s: float = setting("longest silence added before and after", "s", ge=0, le=10)


class Validate(Section):
    """What a row must satisfy, and how many rows may fail before the stage does."""

    sample_rate_hz: int = setting("the sample rate every file must have", "Hz", ge=8000, le=192_000)
    min_duration_s: float = setting("shortest utterance", "s", gt=0)
    max_duration_s: float = setting("longest utterance", "s", gt=0)
    min_characters_per_s: float = setting("slowest speech, spaces not counted", "characters/s", ge=0)
    max_characters_per_s: float = setting("fastest speech, spaces not counted", "characters/s", gt=0)
    max_silent_share: float = setting("most of an utterance that may be silent", "fraction", ge=0, le=1)
    max_clipped_share: float = setting("samples at full scale", "fraction", ge=0, le=1)
    max_bad_share: float = setting(
        "rows that may be quarantined before the stage fails", "fraction", ge=0, le=1
    )
    min_rows_per_split: int = setting("good rows that every split needs", "rows", ge=1)


class EmbedAsr(Section):
    """The search for recordings that occur twice in a corpus."""

    model: str = setting("encoder whose vectors propose pairs: a wav2vec2-family folder", "path")
    layer: int = setting("layer of the vectors; 0 is the convolutional front, -1 the last", "–", ge=-1)
    neighbours: int = setting("nearest utterances that each one is compared with", "utterances", ge=1)
    min_cosine: float = setting("of two whitened vectors whose recordings are compared", "–", ge=-1, le=1)
    min_correlation: float = setting(
        "of every loud stretch of two recordings that count as one", "–", gt=0, le=1
    )
    max_duration_s: float = setting("longer recordings are not compared", "s", gt=0)


class Prepare(Section):
    """Which text normalisers are applied before training."""

    normaliser: Literal["ko-1", "ko-2", "ko-3"] = setting(
        "chain of text normalisers (docs/reference/normalisers.md)", "–"
    )
    inverse_normaliser: Literal["itn-ko-1"] = setting("version of the spoken-to-written normaliser", "–")


class Pretrain(Section):
    """Pre-training of an encoder (`malgil-xlsr-mini`, or one of your own); run by hand, not a stage of the
    road.
    """

    source: Literal["espeak", "manifest", "audio"] = setting(
        "pseudo-speech of `languages`; or `corpus`: a manifest with transcripts (CTC on their "
        "characters), or audio alone (wav2vec2's contrastive task)",
        "–",
    )
    corpus: str = setting(
        "Parquet manifest (columns path, transcript, optionally language and split); with source: audio a "
        "manifest with a path, or a folder",
        "path",
    )
    initial: str = setting(
        "checkpoint to go on from, a folder or a Hub id (`id@revision`); empty: random weights in the mini "
        "shape",
        "path or id",
    )
    languages: Names = setting("espeak-ng languages; Korean is refused", "–")
    seed: int = setting("seed of words, voices, order and weights", "–", ge=0)
    utterances: int = setting("pseudo-sentences rendered", "utterances", ge=8)
    steps: int = setting("optimizer steps", "steps", ge=1)
    learning_rate: float = setting("peak learning rate of AdamW", "1/step", gt=0)
    warmup_share: float = setting("steps of linear warm-up", "fraction", ge=0, lt=1)
    batch_seconds: float = setting("padded audio per batch", "s", gt=0)
    joined_share: float = setting("examples joined from several utterances", "fraction", ge=0, le=1)
    max_joined: int = setting("most utterances in one joined example", "utterances", ge=1, le=8)
    max_silence_s: float = setting("longest silence added before and after", "s", ge=0)
    noise_share: float = setting("examples with noise added", "fraction", ge=0, le=1)
    mask_share: float = setting(
        "contrastive: frames inside masked spans, before spans overlap", "fraction", gt=0, le=1
    )
    mask_frames: int = setting("contrastive: length of a masked span", "frames", ge=1)
    negatives: int = setting("contrastive: wrong frames that the true one is told from", "frames", ge=1)
    diversity_weight: float = setting("contrastive: weight of the codebook's diversity loss", "–", ge=0)
    gumbel_temperature: float = setting("contrastive: of the quantiser, not decayed", "–", gt=0)
    accumulation: int = setting("batches per process and step", "batches", ge=1)
    processes: int = setting("processes on this machine, one per GPU, or on the CPU", "processes", ge=1)
    checkpoint_every: int = setting("steps between checkpoints", "steps", ge=1)


class TrainAsr(Section):
    """Fine-tuning of the recogniser with CTC."""

    encoder: str = setting(
        "wav2vec2 checkpoint to start from: a folder or Hub id (`id@revision`)", "path or id"
    )
    from_scratch: bool = setting("use only the encoder's shape, with fresh weights", "–")
    vocabulary: Literal["jamo", "syllable", "checkpoint"] = setting(
        "symbols of the head: jamo, every character of the train transcripts, or the checkpoint's own", "–"
    )
    seed: int = setting("seed of the head, the order and the augmentation", "–", ge=0)
    steps: int = setting("optimizer steps", "steps", ge=1)
    learning_rate: float = setting("peak learning rate of AdamW", "1/step", gt=0)
    head_factor: float = setting("learning rate of the new head over that of the encoder", "–", gt=0)
    warmup_share: float = setting("steps of linear warm-up", "fraction", ge=0, lt=1)
    batch_seconds: float = setting("padded audio per micro batch", "s", gt=0)
    joined_share: float = setting(
        "training examples joined from several utterances on the fly", "fraction", ge=0, le=1
    )
    max_joined: int = setting("most utterances in one joined example", "utterances", ge=1, le=8)
    max_silence_s: float = setting("longest silence added before and after on the fly", "s", ge=0)
    noise_share: float = setting("examples with noise added on the fly", "fraction", ge=0, le=1)
    speed_share: float = setting(
        "examples with another speed (0.88 to 1.14) and spectral tilt", "fraction", ge=0, le=1
    )
    mask_time_prob: float = setting(
        "SpecAugment: frames in masked spans, before overlaps; 0 masks none", "fraction", ge=0, lt=1
    )
    mask_time_length: int = setting("SpecAugment: length of a masked span of frames", "frames of 20 ms", ge=1)
    mask_feature_prob: float = setting(
        "SpecAugment: hidden features in masked spans; 0 masks none", "fraction", ge=0, lt=1
    )
    mask_feature_length: int = setting(
        "SpecAugment: length of a masked span of features", "hidden features", ge=1
    )
    trainable: Literal["head", "top_layers", "encoder", "all"] = setting(
        "what learns: the head, it and the top layers, all but the feature encoder, or everything", "–"
    )
    top_layers: int = setting("layers that learn with trainable: top_layers", "layers", ge=1)
    unfreeze_share: float = setting(
        "steps over which the layers join the head from the top; 0: all learn at once", "fraction", ge=0, le=1
    )
    precision: Literal["fp32", "bf16", "fp16"] = setting("of the computation; weights stay fp32", "–")
    accumulation: int = setting("micro batches per process and update", "micro batches", ge=1)
    gradient_checkpointing: bool = setting("compute activations twice and store few: less memory", "–")
    processes: int = setting("processes on this machine, one per GPU, or on the CPU", "processes", ge=1)
    early_stopping_patience: int = setting(
        "evaluations without a better CER after which training ends; 0: never", "evaluations", ge=0
    )
    chunk_frames: int = setting(
        "attention in chunks, for streaming with caches; 0: whole utterances", "frames of 20 ms", ge=0
    )
    left_chunks: int = setting("earlier chunks that a chunk attends to, with chunk_frames", "chunks", ge=0)
    right_frames: int = setting(
        "look-ahead of the positional convolution, with chunk_frames", "frames of 20 ms", ge=0
    )
    full_context_share: float = setting(
        "steps on whole utterances all the same, with chunk_frames", "fraction", ge=0, le=1
    )
    evaluate_every: int = setting("steps between looks at the validation split", "steps", ge=1)
    checkpoint_every: int = setting("steps between resumable checkpoints", "steps", ge=1)


class StudyAsr(Section):
    """The transfer study (`malgil asr study`): amounts of data, and how long each is learned from."""

    sizes: Counts = setting("numbers of training utterances, ascending", "utterances")
    steps: Counts = setting("optimizer steps at each size, the same for every method", "steps")
    seeds: Counts = setting("each draws its own utterances, weights and order", "–")
    batch_seconds: float = setting("padded audio per batch", "s", gt=0)
    test_utterances: int = setting("judged utterances, from the start of test_voices", "utterances", ge=1)


class LanguageModelAsr(Section):
    """The n-gram model that the recogniser's search listens to (docs/how-to/language-models.md)."""

    unit: Literal["symbols", "words", "none"] = setting(
        "what it predicts; `none`: no model, the recogniser decodes greedily", "–"
    )
    order: int = setting(
        "length of the longest n-gram; an unknown word is spelled with it too", "symbols or words", ge=2, le=6
    )
    text: str = setting(
        "your own sentences beside the transcripts: UTF-8, one per line; empty for none", "path"
    )


class ExportAsr(Section):
    """Conversion of the recogniser to ONNX and its quantisation to int8."""

    opset: int = setting("ONNX operator set", "–", ge=14, le=20)
    max_logit_difference: float = setting(
        "fp32 ONNX against torch, largest difference allowed", "logit", gt=0
    )
    max_relative_difference_int8: float = setting(
        "int8 ONNX against torch, mean difference allowed, as a share of the logits' spread", "fraction", gt=0
    )


class EvaluateAsr(Section):
    """Evaluation of the checkpoint and of the shipped ONNX file."""

    silence_s: float = setting("silence added on both sides in the silence condition", "s", ge=0)
    joined: int = setting("utterances joined in the joined condition", "utterances", ge=2)
    batch_seconds: float = setting("padded audio per batch", "s", gt=0)
    length_bounds_s: Numbers = setting("where short, medium and long utterances part", "s")
    snr_bounds_db: Numbers = setting("where the slices of noise part", "dB")
    confidence: float = setting("of the intervals by speaker-block bootstrap", "fraction", gt=0.5, lt=1)
    resamples: int = setting("of that bootstrap", "resamples", ge=200)


class Decide(Section):
    """The gate: floors, each to be proven, and the comparison with the version that serves."""

    max_cer_unseen_sentences: float = setting("CER without spaces, known voices", "fraction", ge=0)
    max_cer_unseen_voices: float = setting("CER without spaces, mean over unseen voices", "fraction", ge=0)
    max_cer_rise_silence: float = setting("CER added by silence", "fraction", ge=0)
    max_cer_rise_joined: float = setting("CER added by joining utterances", "fraction", ge=0)
    max_cer_ood: float = setting(
        "CER without spaces on test_ood; not judged without that split", "fraction", ge=0
    )
    min_exact_match: float = setting(
        "tool calls from true text by the GGUF that serves", "fraction", ge=0, le=1
    )
    max_quantisation_loss: float = setting(
        "exact match lost against the merged model, on the same examples", "fraction", ge=0, le=1
    )
    min_exact_match_road: float = setting("speech to tool call, unseen voices", "fraction", ge=0, le=1)
    floor_confidence: float = setting("of the one-sided bound that proves a floor", "fraction", gt=0.5, lt=1)
    confidence: float = setting("of the interval of the paired difference", "fraction", gt=0.5, lt=1)
    resamples: int = setting("of the paired bootstrap", "resamples", ge=200)
    margin: float = setting("loss against the champion still called equal", "fraction", ge=0, le=1)


class Publish(Section):
    """Where shipped files go."""

    target: Literal["folder", "hub"] = setting(
        "a folder, or the Hugging Face Hub (HF_TOKEN in the environment)", "–"
    )
    folder: str = setting("root of published repositories; used with target: folder", "path", min_length=1)
    namespace: str = setting("user or organisation on the Hub", "–", min_length=1)
    private: bool = setting("make Hub repositories private", "–")
    asr_repo: str = setting("repository of the recogniser", "–", pattern=r"^[\w.-]+$")
    llm_repo: str = setting("repository of the language model", "–", pattern=r"^[\w.-]+$")


class Registry(Section):
    """MLflow: where runs and versions are kept."""

    tracking_uri: str = setting("tracking and registry store; MLFLOW_TRACKING_URI wins", "URI", min_length=1)
    artifacts: str = setting("folder or URI of run artifacts for a local store", "path or URI", min_length=1)
    experiment: str = setting("experiment of the training runs", "–", min_length=1)
    asr_model: str = setting("registered name of the recogniser", "–", pattern=r"^[\w.-]+$")
    llm_model: str = setting("registered name of the language model", "–", pattern=r"^[\w.-]+$")
    environments: Names = setting("aliases a version passes through, first to last", "–")


class Params(Section):
    """The whole of params.yaml."""

    corpus: Corpus
    embed_asr: EmbedAsr
    validate_: Validate = Field(alias="validate")
    prepare: Prepare
    pretrain: Pretrain
    train_asr: TrainAsr
    study_asr: StudyAsr
    language_model_asr: LanguageModelAsr
    export_asr: ExportAsr
    evaluate_asr: EvaluateAsr
    base_llm: BaseLlm
    pretrain_llm: PretrainLlm
    train_llm: TrainLlm
    convert_llm: ConvertLlm
    quantise_llm: QuantiseLlm
    verify_llm: VerifyLlm
    evaluate_llm: EvaluateLlm
    evaluate_road: EvaluateRoad
    decide: Decide
    publish: Publish
    registry: Registry


SECTIONS: dict[str, Any] = {
    (field.alias or name): field.annotation for name, field in Params.model_fields.items()
}
