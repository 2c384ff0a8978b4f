"""One tiny corpus for the whole room: eight sentences a split, two voices each, made once per session."""

from pathlib import Path

import pytest

from tasks.data import prepare_asr, prepare_llm
from tasks.settings import Corpus, Prepare
from tests import corpora


@pytest.fixture(scope="session")
def corpus_params() -> Corpus:
    return Corpus(
        source="builtin",
        manifest="",
        folder="",
        hub="",
        audio_column="",
        transcript_column="",
        speaker_column="",
        split_column="",
        readings="",
        marks="marks-1",
        dual_side="spoken",
        fillers="keep",
        seed=3,
        train_sentences=40,
        validation_sentences=8,
        test_sentences=8,
        train_utterances=40,
        test_utterances=8,
        ood_utterances=14,
        voices=5,
        unseen_voices=2,
        joined_share=0.25,
        clean_share=0.5,
        snr_db=(30.0, 20.0, 10.0),
        max_silence_s=0.8,
    )


@pytest.fixture(scope="session")
def tiny_corpus(corpus_params: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "corpus"
    return corpora.make(corpus_params, out_dir=folder)


@pytest.fixture(scope="session")
def tiny_prepared(tiny_corpus: Path) -> Path:
    """prepared/asr and prepared/llm of the tiny corpus, every row taken as valid."""
    folder = tiny_corpus.parent / "prepared"
    params = Prepare(normaliser="ko-1", inverse_normaliser="itn-ko-1")
    prepare_asr.prepare(params, corpus=tiny_corpus, validated=tiny_corpus, out_dir=folder / "asr")
    prepare_llm.prepare(params, commands=tiny_corpus.parent / "commands", out_dir=folder / "llm")
    return folder
