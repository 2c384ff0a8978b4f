"""The data source before a run: columns, encoding, splits, readings, tools, calls, ten recordings."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests import tiny_llm

SOURCE = ("corpus.source=manifest", "corpus.manifest=own/rows.csv")


def write(folder: Path, count: int = 60, before: str = "") -> Path:
    """A CSV of recordings with tool calls."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["path,transcript,speaker,tool_call"]
    for number, row in enumerate(tiny_llm.rows(count)):
        soundfile.write(folder / f"{number}.wav", rng.normal(0, 0.1, 16_000), 16_000, "PCM_16")
        call = json.dumps(row["tool_call"], ensure_ascii=False).replace('"', '""')
        lines.append(f'{number}.wav,{before}{row["text"]},s{number % 6},"{call}"')
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def own(project: Path) -> Path:
    return write(project / "own")


def change(folder: Path, old: str, new: str) -> None:
    path = folder / "rows.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_whole_recordings_pass(own: Path, refused: Any, checked: Any) -> None:
    assert refused(*SOURCE) == ""
    said = [one.what for one in checked(*SOURCE) if one.check == "data source"]
    assert any("60 rows" in one for one in said) and "10 recordings decode to their end" in said


def test_a_manifest_that_is_not_there_and_the_advice_works(own: Path, refused: Any) -> None:
    said = refused("corpus.source=manifest", "corpus.manifest=own/rws.csv")
    assert "own/rws.csv does not exist" in said and "correct the path" in said
    assert refused(*SOURCE) == ""


def test_columns_of_other_names_and_the_advice_works(own: Path, refused: Any) -> None:
    change(own, "path,transcript,", "clip_location,what_was_said,")
    assert "path, transcript" in refused(*SOURCE)
    named = ("corpus.audio_column=clip_location", "corpus.transcript_column=what_was_said")
    assert refused(*SOURCE, *named) == ""


def test_readings_that_are_wrong_are_said(own: Path, refused: Any) -> None:
    (own / "readings.csv").write_text("written,spoken\nTV,tv\n", encoding="utf-8")
    said = refused(*SOURCE, "corpus.readings=own/readings.csv")
    assert "'TV' is said 'tv'" in said
    (own / "readings.csv").write_text("written,spoken\nTV,티비\n", encoding="utf-8")
    assert refused(*SOURCE, "corpus.readings=own/readings.csv") == "", "the advice works"


def test_calls_that_the_tools_do_not_know_are_said(own: Path, refused: Any) -> None:
    tool = {"name": "launch", "parameters": {"type": "object"}}
    (own / "tools.json").write_text(json.dumps([tool]))
    said = refused(*SOURCE)
    assert "there is no tool" in said and "known: launch" in said
    (own / "tools.json").write_text("[]")
    assert "at least one tool is needed" in refused(*SOURCE)
    (own / "tools.json").unlink()
    assert refused(*SOURCE) == "", "the advice works"


def test_no_call_at_all_stops_the_language_model_alone(own: Path, refused: Any) -> None:
    lines = [line.partition(',"')[0] for line in (own / "rows.csv").read_text("utf-8").splitlines()]
    (own / "rows.csv").write_text(
        "\n".join([lines[0], *(line + "," for line in lines[1:])]), encoding="utf-8"
    )
    said = refused(*SOURCE)
    assert "no row has a tool_call" in said and "--line asr" in said
    assert refused(*SOURCE, line="asr") == "", "the advice works"


def test_recordings_that_are_lost_or_cut_are_said_and_the_advice_works(own: Path, refused: Any) -> None:
    kept = shutil.copytree(own, own.parent / "kept")
    assert refused(*SOURCE) == ""  # what follows is seen although the manifest stays the same
    for number in range(5):
        (own / f"{number}.wav").unlink()
    said = refused(*SOURCE)
    assert (
        "5 of 60 recordings looked for are not there, as in line 2 of rows.csv: '0.wav', looked for as"
        in said
        and "restore the files" in said
    )
    for path in kept.glob("*.wav"):
        whole = path.read_bytes()
        (own / path.name).write_bytes(whole[: len(whole) // 2])
    said = refused(*SOURCE)
    assert "10 of 10 recordings decoded to their end are no whole audio" in said and "copy them again" in said
    for path in kept.glob("*.wav"):
        shutil.copy(path, own)
    assert refused(*SOURCE) == ""


def test_one_bad_recording_of_many_is_a_warning(project: Path, checked: Any, refused: Any) -> None:
    own = write(project / "own", 120)
    (own / "0.wav").write_bytes(b"RIFF")
    assert refused(*SOURCE) == ""
    found = [one for one in checked(*SOURCE) if one.state == "warning" and one.check == "data source"]
    assert len(found) == 1 and "0.wav" in found[0].what


def test_characters_that_no_normaliser_reads_are_a_warning(project: Path, checked: Any) -> None:
    write(project / "own", before="TV ")
    found = [one for one in checked(*SOURCE, "prepare.normaliser=ko-1", line="asr") if one.state == "warning"]
    assert any("'T' 'V' after ko-1" in one.what for one in found)
    found = [one for one in checked(*SOURCE, "prepare.normaliser=ko-3", line="asr") if one.state == "warning"]
    assert not any("ko-3" in one.what for one in found), "the advice works"


def test_a_folder_without_transcripts_is_said_and_the_advice_works(project: Path, refused: Any) -> None:
    own = write(project / "own")
    (own / "rows.csv").rename(project / "rows.csv")
    said = refused("corpus.source=folder", "corpus.folder=own", line="asr")
    assert "holds 60 recordings and no transcript" in said
    for number, row in enumerate(tiny_llm.rows(60)):
        (own / f"{number}.txt").write_text(row["text"], encoding="utf-8")
    assert refused("corpus.source=folder", "corpus.folder=own", line="asr") == ""


def test_a_data_set_of_the_hub_that_is_not_there_is_said(
    project: Path, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = refused("corpus.source=hub", "corpus.hub=team/speech", line="asr")
    assert "corpus.hub 'team/speech' is no local folder and cannot be reached" in said
    assert "offline, name a local copy" in said
