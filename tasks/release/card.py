"""The model card: front matter that the Hub reads, and a page for people.

Made from the evidence alone, without a clock, so that the same release gives the same bytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.data.hub import hub_name
from tasks.release.answers import Road
from tasks.release.decide import Decision
from tasks.release.evidence import Line
from tasks.release.lineage import Lineage
from tasks.settings import Params

TEMPLATES = Path(__file__).parent / "templates"
BUILTIN_LLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
PIPELINE = {"asr": "automatic-speech-recognition", "llm": "text-generation"}
RATES = (
    ("cer_unseen_sentences", "CER, unseen sentences, known voices"),
    ("cer_unseen_voices", "CER, unseen sentences and voices"),
    ("wer_unseen_sentences", "WER, unseen sentences, known voices"),
    ("wer_unseen_voices", "WER, unseen sentences and voices"),
    ("cer_with_spaces_unseen_sentences", "CER with spaces, unseen sentences"),
    ("cer_unseen_sentences_greedy", "CER, unseen sentences, greedy (without the n-gram model)"),
    ("cer_unseen_voices_greedy", "CER, unseen sentences and voices, greedy"),
    ("cer_with_silence", "CER, silence added on both sides"),
    ("cer_joined", "CER, utterances joined"),
    ("cer_ood", "CER, out of domain"),
    ("cer_ood_greedy", "CER, out of domain, greedy"),
    ("wer_space_normalised_unseen_sentences", "WER after re-spacing, unseen sentences"),
    ("wer_ood", "WER, out of domain"),
)
OPEN_LICENCE = {
    "asr": "Apache-2.0. Trained on speech made by espeak-ng (GPL-3.0; its output is not bound by that).",
    "llm": "Apache-2.0, as its base model SmolLM2-135M-Instruct.",
}
OTHER_LICENCE = "That of the base model and of the data it was made from; neither was chosen by Malgil."


def write_card(
    line: Line,
    params: Params,
    *,
    decision: Decision,
    metrics: Mapping[str, Any],
    lineage: Lineage,
    artifact: str,
    road: Road | None = None,
    unseen_voices: frozenset[str] = frozenset(),
    served: str = "",
) -> str:
    """The text of README.md.

    Args:
        metrics: the line's evaluation/metrics.json.
        artifact: digest of the shipped files.
        served: file name of the GGUF that serves.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["percent"] = percent
    environment.filters["interval"] = interval
    builtin = params.corpus.source == "builtin"
    repository = params.publish.asr_repo if line == "asr" else params.publish.llm_repo
    values = {
        "name": repository,
        "repository": f"{params.publish.namespace}/{repository}",
        "alias": params.registry.environments[0],
        "decision": decision,
        "metrics": metrics,
        "synthetic": builtin,
        "road": road,
        "lineage": lineage,
        "artifact": artifact,
        "licence": OPEN_LICENCE[line] if is_open(line, params) else OTHER_LICENCE,
        "rates": [(key, label) for key, label in RATES if _has(metrics, key)],
        "unseen": unseen_voices,
        "confidence": params.evaluate_asr.confidence,
        "ood_slices": [
            row
            for row in metrics.get("onnx_int8", {}).get("slices", [])
            if row["group"] == "out of domain" or row["slice"] == "out of domain"
        ],
        "encoder": params.train_asr.encoder,
        "unit": params.language_model_asr.unit,
        "source": params.corpus.source,
        "base": f"`{base_model(line, params) or params.base_llm.model}`",
        "inverse_normaliser": params.prepare.inverse_normaliser,
        "quantisation": params.evaluate_road.quantisation,
        "served": served,
    }
    page = environment.get_template(f"{line}.md.j2").render(values)
    page += environment.get_template("lineage.md.j2").render(values)
    return f"---\n{front_matter(line, params, metrics, repository)}\n---\n\n{page}"


def front_matter(line: Line, params: Params, metrics: Mapping[str, Any], repository: str) -> str:
    """YAML that the Hub accepts, with the rates of the file that ships as a model-index."""
    from huggingface_hub import EvalResult, ModelCardData

    about: dict[str, Any] = {
        "task_type": PIPELINE[line],
        "dataset_type": "malgil-smart-home" if params.corpus.source == "builtin" else "own",
        "dataset_name": "Malgil smart home (synthetic)"
        if params.corpus.source == "builtin"
        else "own recordings",
        "dataset_split": "test",
    }
    if line == "asr":
        shown = metrics["onnx_int8"]
        results = [
            EvalResult(metric_type=key[:3], metric_name=label, metric_value=round(shown[key], 6), **about)
            for key, label in RATES
            if shown.get(key) is not None
        ]
    else:
        results = [
            EvalResult(
                metric_type="exact_match",
                metric_name=f"Exact match, {system}",
                metric_value=round(rate, 6),
                **about,
            )
            for system, rate in metrics["exact_match"].items()
        ]
    opened = is_open(line, params)
    data = ModelCardData(
        language="ko",
        license="apache-2.0" if opened else "other",
        license_name=None if opened else "as-base-model-and-data",
        pipeline_tag=PIPELINE[line],
        base_model=base_model(line, params),
        tags=["malgil", *(["synthetic-data"] if params.corpus.source == "builtin" else []), line],
        model_name=repository,
        eval_results=results,
    )
    return str(data.to_yaml())


def base_model(line: Line, params: Params) -> str | None:
    """The Hub id of the base model, without a revision; None for a local folder: no link."""
    if line == "llm" and params.base_llm.model == "builtin":
        return BUILTIN_LLM
    name = params.base_llm.model if line == "llm" else params.train_asr.encoder
    asked = None if Path(name).exists() or name.startswith("models/") else hub_name(name)
    return asked.repository if asked and "/" in asked.repository else None


def is_open(line: Line, params: Params) -> bool:
    """Whether everything the line is made from is the built-in, Apache-2.0 kind."""
    own = {"asr": "models/malgil-xlsr-mini", "llm": "builtin"}
    used = {"asr": params.train_asr.encoder, "llm": params.base_llm.model}
    return params.corpus.source == "builtin" and used[line] == own[line]


def percent(rate: float | None) -> str:
    """0.0312 as "3.12%"; – for what was not measured."""
    return "–" if rate is None else f"{rate:.2%}"


def interval(ends: Sequence[float] | None) -> str:
    """[0.031, 0.052] as "3.10% to 5.20%"; – if there is none."""
    return "–" if ends is None else f"{percent(ends[0])} to {percent(ends[1])}"


def _has(metrics: Mapping[str, Any], key: str) -> bool:
    return metrics.get("onnx_int8", {}).get(key) is not None
