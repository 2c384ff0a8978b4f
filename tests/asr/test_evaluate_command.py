"""`malgil asr evaluate` as a user calls it: rates that are counted by hand, rows that add up, two models compared."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from typer.testing import CliRunner, Result

from flows.cli import app
from tasks.asr.checkpoints.checkpoint import Vocabulary, load_encoder, save_checkpoint
from tasks.data.normalisers import normalise
from tasks.errors import DataError, MalgilError
from tests.asr.tiny_models import SYLLABLES
from tests.hub_server import LFS_SUFFIXES, Hub, Repo, redirect, start

RATES = ("cer", "cer_with_spaces", "wer", "wer_space_normalised")


def malgil(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["asr", *map(str, arguments)])


def evaluated(*arguments: object) -> dict[str, Any]:
    ended = malgil("evaluate", *arguments, "--json")
    assert ended.exit_code == 0, (ended.stderr, ended.exception)
    found: dict[str, Any] = json.loads(ended.stdout)
    assert found["rows"]["read"] == found["rows"]["evaluated"] + sum(found["rows"]["set_aside"].values())
    return found


def refused(*arguments: object) -> MalgilError:
    ended = malgil("evaluate", *arguments)
    assert isinstance(ended.exception, MalgilError), ended.exception
    return ended.exception


def untrained(encoder: Path, folder: Path, seed: int, symbols: tuple[str, ...] = SYLLABLES) -> Path:
    """A recogniser of whole syllables that says something, another thing for another seed."""
    vocabulary = Vocabulary.of_symbols(symbols)
    model = load_encoder(str(encoder), vocabulary, seed=seed)
    torch.nn.init.normal_(model.lm_head.weight, std=1.0)
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(folder, model, vocabulary, {})
    return folder


@pytest.fixture(scope="session")
def talker(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(encoder, tmp_path_factory.mktemp("talker"), seed=4)


@pytest.fixture(scope="session")
def other(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(encoder, tmp_path_factory.mktemp("other"), seed=11)


@pytest.fixture(scope="session")
def speech(talker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen recordings by eight speakers, with what `talker` says of them as transcripts."""
    folder = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(7)
    for number in range(16):
        length = 16_000 + 1_600 * number
        soundfile.write(folder / f"{number:02d}.wav", rng.uniform(-0.3, 0.3, length), 16_000)
    said = json.loads(malgil("transcribe", folder, "--model", talker, "--format", "json").stdout)
    frame = pd.DataFrame(
        {
            "path": [Path(row["path"]).name for row in said],
            "transcript": [normalise(row["text"], "ko-3") for row in said],
            "speaker": [f"s{number % 8}" for number in range(16)],
            "split": ["test"] * 12 + ["train"] * 4,
            "place": ["home", "car"] * 8,
        }
    )
    assert frame["transcript"].str.len().min() > 2 and frame["transcript"].str.contains(" ").any()
    frame.to_csv(folder / "table.csv", index=False)
    return folder


@pytest.fixture
def own(speech: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(speech, tmp_path / "own"))


def rewrite(folder: Path, change: Any) -> Path:
    frame = pd.read_csv(folder / "table.csv", dtype=str, keep_default_na=False)
    (changed := change(frame)).to_csv(folder / "table.csv", index=False)
    assert len(changed)
    return folder / "table.csv"


def distance(a: Any, b: Any) -> int:
    """Levenshtein's, by the textbook: not what the code under test calls."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != y)))
    return row[-1]


def test_what_it_says_itself_has_no_error(speech: Path, talker: Path) -> None:
    found = evaluated("--model", talker, "--data", speech / "table.csv")
    (model,) = found["models"]
    assert [model[name] for name in RATES] == [0.0] * 4 and model["cer_interval"] == [0.0, 0.0]
    assert (model["utterances"], model["speakers"], model["backend"]) == (16, 8, "torch")
    seconds = sum(soundfile.info(path).duration for path in speech.glob("*.wav"))
    assert model["hours"] == pytest.approx(seconds / 3600) and model["times_real_time"] > 0
    assert found["rows"] == {"read": 16, "evaluated": 16, "set_aside": {}}


def test_known_errors_give_the_rates_that_are_counted_by_hand(own: Path, talker: Path) -> None:
    texts: list[str] = []

    def spoil(frame: pd.DataFrame) -> pd.DataFrame:
        texts.extend(frame["transcript"])
        frame.loc[0, "transcript"] = "힣" + frame.loc[0, "transcript"]  # one that was not heard
        frame.loc[1, "transcript"] += "?"  # no error: the normaliser takes it
        spaced = next(n for n in range(2, 16) if " " in frame.loc[n, "transcript"])
        frame.loc[spaced, "transcript"] = frame.loc[spaced, "transcript"].replace(" ", "")
        return frame

    table = rewrite(own, spoil)
    (model,) = evaluated("--model", talker, "--data", table)["models"]
    references = [normalise(text, "ko-3") for text in pd.read_csv(table, dtype=str)["transcript"]]
    pairs = list(zip(references, texts, strict=True))
    bare = [("".join(r.split()), "".join(h.split())) for r, h in pairs]
    assert sum(distance(r, h) for r, h in bare) == 1
    assert model["characters"] == sum(len(r) for r, _ in bare)
    assert model["cer"] == pytest.approx(1 / model["characters"])
    assert model["cer_with_spaces"] == pytest.approx(
        sum(distance(r, h) for r, h in pairs) / sum(len(r) for r in references)
    )
    words = [(r.split(), h.split()) for r, h in pairs]
    count = sum(len(r) for r, _ in words)
    assert model["wer"] == pytest.approx(sum(distance(r, h) for r, h in words) / count)
    assert model["wer_space_normalised"] == pytest.approx(1 / count) and model["wer"] > 1 / count


def test_every_row_is_evaluated_or_set_aside_by_name(own: Path, talker: Path, tmp_path: Path) -> None:
    def spoil(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[0, "transcript"] = ""
        frame.loc[1, "transcript"] = "?!"
        frame.loc[2, "transcript"] = "Netflix 틀어 줘"
        frame.loc[3, "path"] = "gone.wav"
        frame.loc[4, "path"] = ""
        return frame

    table = rewrite(own, spoil)
    (own / "05.wav").write_bytes((own / "05.wav").read_bytes()[:5_000])
    (own / "06.wav").write_text("no audio")
    out = tmp_path / "out"
    found = evaluated("--model", talker, "--data", table, "--split", "test", "--limit", 10, "--out", out)
    assert found["rows"] == {
        "read": 16,
        "evaluated": 3,
        "set_aside": {
            "other_split": 4,
            "beyond_limit": 2,
            "no_path": 1,
            "missing_file": 1,
            "empty_transcript": 2,
            "not_hangul": 1,
            "unreadable_file": 2,
        },
    }
    told = {one["row"]: one for one in found["set_aside"]}
    assert sorted(told) == [1, 2, 3, 4, 5, 6, 7]
    assert told[4]["path"] == "gone.wav" and "N e t" in " ".join(
        sorted(told[3]["detail"], key="Netflix ".find)
    )
    written = pd.read_parquet(out / "set_aside.parquet")
    assert len(written) == 13 and json.loads((out / "metrics.json").read_text()) == found
    utterances = pd.read_parquet(out / "utterances.parquet")
    assert utterances["row"].tolist() == [8, 9, 10]
    assert utterances["hypothesis"].tolist() == utterances["reference"].tolist()
    shown = malgil("evaluate", "--model", talker, "--data", table)
    assert shown.exit_code == 0 and "line 5 of table.csv (gone.wav), missing_file" in shown.stdout


def test_what_was_put_right_in_a_recording_is_said(own: Path, talker: Path) -> None:
    content = (own / "00.wav").read_bytes()
    (own / "00.wav").write_bytes(content[:40] + b"\xff\xff\xff\xff" + content[44:])
    samples, rate_hz = soundfile.read(own / "01.wav")
    soundfile.write(own / "01.wav", np.stack([samples, -samples], axis=1), rate_hz)
    asked = ("--model", talker, "--data", own / "table.csv", "--limit", 3)
    notes = evaluated(*asked)["data"]["recordings"]
    assert len(notes) == 2 and "00.wav states no length" in notes[0] and "01.wav has channels" in notes[1]
    assert "01.wav has channels of opposite sign" in " ".join(malgil("evaluate", *asked).stdout.split())


def test_marks_are_no_words_and_a_line_that_is_no_row_is_counted(own: Path, talker: Path) -> None:
    def mark(frame: pd.DataFrame) -> pd.DataFrame:
        frame["transcript"] = "b/ " + frame["transcript"] + " n/"
        frame.loc[3, "transcript"] += " &name1&"
        frame.loc[5, "path"] = "05.WAV"
        return frame

    table = rewrite(own, mark)
    table.write_text(table.read_text("utf-8") + "half a line\n", encoding="utf-8")
    found = evaluated("--model", talker, "--data", table)
    assert found["rows"] == {
        "read": 17,
        "evaluated": 15,
        "set_aside": {"unreadable_line": 1, "anonymised_name": 1},
    }
    assert found["models"][0]["cer"] == 0
    told = {one["reason"]: one for one in found["set_aside"]}
    assert told["unreadable_line"]["where"] == "line 18 of table.csv"
    assert told["anonymised_name"]["where"] == "line 5 of table.csv" and "&name1&" in str(told)
    assert any("another case" in note for note in found["data"]["notes"])
    as_words = evaluated("--model", talker, "--data", table, "--marks", "none")
    assert as_words["models"][0]["cer"] > 0


def test_with_no_row_left_the_exit_code_is_2_and_the_advice_works(own: Path, talker: Path) -> None:
    table = rewrite(own, lambda frame: frame.assign(transcript="Netflix"))
    error = refused("--model", talker, "--data", table)
    assert "16 read, 16 the normalised transcript holds" in error.what and error.exit_code == 2
    assert "--readings" in error.next_step
    (own / "readings.csv").write_text("written,spoken\nNetflix,넷플릭스\n", encoding="utf-8")
    found = evaluated("--model", talker, "--data", table, "--readings", own / "readings.csv")
    assert found["rows"]["evaluated"] == 16 and "넷플릭스" not in str(found["data"]["name"])
    assert "16 words of 16 transcripts were read out" in found["data"]["notes"][0]


def test_the_same_model_twice_does_not_differ(speech: Path, talker: Path) -> None:
    found = evaluated("--model", talker, "--model", talker, "--data", speech / "table.csv")
    comparison = found["comparison"]
    assert (comparison["difference"], comparison["p"]) == (0.0, 1.0)
    assert comparison["verdict"] == "no difference shown" and comparison["equal"] == 16
    assert found["models"][0]["cer"] == found["models"][1]["cer"]


def test_a_better_model_is_called_better_and_a_worse_one_worse(
    speech: Path, talker: Path, other: Path
) -> None:
    there = ("--data", speech / "table.csv")
    worse = evaluated("--model", talker, "--model", other, *there)["comparison"]
    better = evaluated("--model", other, "--model", talker, *there)["comparison"]
    assert (worse["verdict"], better["verdict"]) == ("worse", "better")
    assert worse["difference"] == -better["difference"] > 0 and worse["p"] == better["p"] == 2 / 2**8
    assert worse["interval"] == [-better["interval"][1], -better["interval"][0]]
    assert (worse["method"], worse["blocks"], worse["first"]) == ("exact sign flip", 8, 0.0)
    shown = malgil("evaluate", "--model", talker, "--model", other, *there).stdout
    assert "the second is worse" in shown and "p = 0.008" in shown


def test_too_few_speakers_can_never_show_a_difference_and_it_is_said(
    own: Path, talker: Path, other: Path
) -> None:
    table = rewrite(own, lambda f: f.assign(speaker=[f"s{n % 3}" for n in range(16)]))
    found = evaluated("--model", talker, "--model", other, "--data", table)["comparison"]
    assert found["verdict"] == "no difference shown" and found["interval"] == [None, None]
    assert found["p"] == 0.25 and "3 speakers can never show" in found["notes"][0]
    needed = int(found["notes"][0].split("At least ")[1].split()[0])
    for speakers, verdict in ((needed - 1, "no difference shown"), (needed, "worse")):
        rewrite(own, lambda f, k=speakers: f.assign(speaker=[f"s{n % k}" for n in range(16)]))
        again = evaluated("--model", talker, "--model", other, "--data", table)["comparison"]
        assert again["verdict"] == verdict


def test_without_speakers_utterances_are_drawn_and_it_is_said(own: Path, talker: Path) -> None:
    table = rewrite(own, lambda frame: frame.drop(columns="speaker"))
    found = evaluated("--model", talker, "--model", talker, "--data", table)
    assert found["intervals"]["block"] == "utterance" and found["models"][0]["speakers"] == 0
    assert found["comparison"]["method"] == "paired block bootstrap"
    assert (found["comparison"]["difference"], found["comparison"]["p"]) == (0.0, 1.0)
    assert "--speaker-column" in malgil("evaluate", "--model", talker, "--data", table).stdout


def test_the_file_that_ships_is_compared_with_a_checkpoint(speech: Path, shipped: Path, talker: Path) -> None:
    found = evaluated("--model", shipped, "--model", talker, "--data", speech / "table.csv")
    first, second = found["models"]
    assert (first["backend"], first["decoder"]) == ("onnx", "lm")
    assert (second["backend"], second["decoder"]) == ("torch", "greedy")
    assert first["cer"] > 0 and found["comparison"]["verdict"] == "better"
    greedy = evaluated("--model", shipped, "--data", speech / "table.csv", "--decoder", "greedy")["models"][0]
    assert greedy["decoder"] == "greedy" and greedy["cer"] == greedy["cer_greedy"] == first["cer_greedy"]


def test_slices_add_up_and_are_named(own: Path, other: Path) -> None:
    ours = {"duration_s": ["1", "2"] * 8, "edits": ["a", ""] * 8}  # as columns of ours are called
    table = rewrite(own, lambda f: f.assign(snr_db=["", "3", "20", "30"] * 4, **ours))
    wanted = [part for name in ("place", "speaker", *ours) for part in ("--slice-by", name)]
    found = evaluated("--model", other, "--data", table, *wanted)
    (model,) = found["models"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in model["slices"]:
        groups.setdefault(row["group"], []).append(row)
    assert set(groups) == {"split", "length", "noise", "place", "speaker", *ours}
    assert {row["slice"] for row in groups["place"]} == {"home", "car"}
    assert {row["slice"] for row in groups["edits"]} == {"a", "(none)"}
    for rows in groups.values():
        assert sum(row["utterances"] for row in rows) == 16
        edits = sum(row["cer"] * row["characters"] for row in rows)
        assert edits == pytest.approx(model["cer"] * model["characters"])
    assert all(row["cer_interval"] is None for row in groups["speaker"])
    low, high = model["cer_interval"]
    assert low < model["cer"] < high
    error = refused("--model", other, "--data", table, "--slice-by", "colour")
    assert "no column colour" in error.what and "place" in error.rule


def test_the_same_call_gives_the_same_figures(own: Path, other: Path) -> None:
    def figures() -> Any:
        found = evaluated("--model", other, "--data", own / "table.csv")
        for model in found["models"]:
            del model["seconds"], model["times_real_time"]
        return found

    assert figures() == figures()


def test_a_recogniser_of_latin_capitals_is_scored_on_what_it_heard(
    own: Path, encoder: Path, tmp_path: Path
) -> None:
    folder = untrained(encoder, tmp_path / "latin", seed=4, symbols=tuple("ABK"))
    said = json.loads(malgil("transcribe", own, "--model", folder, "--format", "json").stdout)
    called = {"A": "에이", "B": "비", "K": "케이", " ": " "}
    spelled = ["".join(called[letter] for letter in row["text"]) for row in said]
    short = [row["text"] != "" and max(map(len, row["text"].split())) <= 6 for row in said]
    assert sum(short) > 2, "others are words, whose reading nobody knows"
    table = rewrite(own, lambda f: f.assign(transcript=spelled)[short])
    (model,) = evaluated("--model", folder, "--data", table)["models"]
    assert (model["utterances"], model["cer"], model["wer"]) == (sum(short), 0.0, 0.0)


def test_a_folder_with_sidecars_and_columns_of_other_names(own: Path, talker: Path, tmp_path: Path) -> None:
    (folder := tmp_path / "three").mkdir()
    frame = pd.read_csv(own / "table.csv")
    for name, text in zip(frame["path"][:3], frame["transcript"], strict=False):
        shutil.copy(own / name, folder)
        (folder / name).with_suffix(".txt").write_text(text, encoding="utf-8")
    found = evaluated("--model", talker, "--data", folder)
    assert found["rows"] == {"read": 3, "evaluated": 3, "set_aside": {}} and found["models"][0]["cer"] == 0
    assert found["data"]["door"] == "folder"

    table = rewrite(own, lambda f: f.rename(columns={"path": "klang", "transcript": "wort"}))
    error = refused("--model", talker, "--data", table)
    assert "no column path, transcript" in error.what and "klang" in error.rule
    assert "--audio-column" in error.next_step and "--transcript-column" in error.next_step
    named = ("--audio-column", "klang", "--transcript-column", "wort")
    assert evaluated("--model", talker, "--data", table, *named)["models"][0]["cer"] == 0
    error = refused("--model", talker, "--data", table, "--audio-column", "klnag")
    assert "corpus." not in str(error) and "--audio-column" in error.what


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Hub, str]]:
    state = Hub()
    running, address = start(state)
    yield state, address
    running.should_exit = True


def test_a_checkpoint_and_a_data_set_of_the_hub(
    server: tuple[Hub, str],
    speech: Path,
    talker: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state, address = server
    redirect(monkeypatch, address, tmp_path / "cache")
    frame = pd.read_csv(speech / "table.csv")
    model, data = Repo(), Repo()
    content = {p.name: (p.read_bytes(), p.suffix in LFS_SUFFIXES) for p in talker.iterdir()}
    model.branches["main"] = model.commit(content, "")
    shard = io.BytesIO()
    audio = [{"bytes": (speech / name).read_bytes(), "path": name} for name in frame["path"][:6]]
    texts = {"text": frame["transcript"][:6].tolist(), "speaker_id": frame["speaker"][:6].tolist()}
    pd.DataFrame({"audio": audio, **texts}).to_parquet(shard)
    card = b"---\ntags:\n- synthetic\n---\n"
    content = {"data/test-00000-of-00001.parquet": (shard.getvalue(), True), "README.md": (card, False)}
    data.branches["main"] = data.commit(content, "")
    state.repos |= {"team/recogniser": model, "team/speech": data}
    found = evaluated("--model", "team/recogniser", "--data", "team/speech", "--split", "test")
    assert found["models"][0]["name"] == f"team/recogniser@{model.branches['main']}"
    assert found["data"]["name"] == f"team/speech at {data.branches['main']}"
    assert found["models"][0]["cer"] == 0 and found["models"][0]["speakers"] == 6
    assert found["data"]["synthetic"] == "all"
    error = refused("--model", talker, "--data", "team/nothing")
    assert "corpus." not in str(error) and "HF_TOKEN" in error.next_step


def test_synthetic_speech_is_called_so(own: Path, talker: Path) -> None:
    there = ("--model", talker, "--data", own / "table.csv", "--limit", 4)
    assert evaluated(*there)["data"]["synthetic"] is None
    (own / "card.md").write_text("**All speech here is synthetic.** It was rendered.", encoding="utf-8")
    assert evaluated(*there)["data"]["synthetic"] == "all"
    assert "synthetic speech" in malgil("evaluate", *there).stdout
    (own / "card.md").unlink()
    rewrite(own, lambda f: f.assign(synthetic=["true", "false"] * 8))
    assert evaluated(*there)["data"]["synthetic"] == "some"


def test_a_folder_with_other_files_is_not_written_over_and_the_advice_works(
    own: Path, talker: Path, tmp_path: Path
) -> None:
    there = ("--model", talker, "--data", own / "table.csv", "--limit", 2)
    error = refused(*there, "--out", own)
    assert "would be lost" in error.rule and (own / "00.wav").is_file()
    assert "is a file" in refused(*there, "--out", own / "00.wav").what
    for _ in range(2):  # new, then of an earlier evaluation
        evaluated(*there, "--out", tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "metrics.json", "set_aside.parquet", "utterances.parquet",
    ]  # fmt: skip


def test_stopped_in_the_middle_it_writes_nothing(
    own: Path, talker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.asr.judging import recognise as module

    def stopped(*arguments: Any, **options: Any) -> Iterator[Any]:
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "transcribe", stopped)
    ended = malgil(
        "evaluate", "--model", talker, "--data", own / "table.csv", "--out", tmp_path / "out" / "new"
    )
    assert ended.exit_code == 130 and "nothing was written" in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--split", "dev"), "no split dev"),
        (("--data", "/no/where"), "--data /no/where does not exist"),
        (("--model", "/no/where"), "/no/where does not exist"),
        (("--model", "a", "--model", "b"), "given 3 times"),
        (("--decoder", "greedy", "--beam-size", 5), "--beam-size with --decoder greedy"),
    ],
)
def test_what_cannot_be_evaluated_is_named(
    own: Path, talker: Path, options: tuple[str, ...], says: str
) -> None:
    given = ["--model", str(talker), "--data", str(own / "table.csv")]
    if options[0] == "--model" and len(options) == 2:
        given = given[2:]
    assert says in refused(*given, *options).what


def test_a_split_that_is_named_as_advised_is_found(own: Path, talker: Path) -> None:
    error = refused("--model", talker, "--data", own / "table.csv", "--split", "dev")
    assert isinstance(error, DataError)
    for name in error.rule.removeprefix("its splits are ").split(", "):
        found = evaluated("--model", talker, "--data", own / "table.csv", "--split", name)
        assert found["rows"]["evaluated"] > 0
