"""A change behind an unchanged name: recordings, tools, tables, models; and what is no change."""

import itertools
import json
import logging
import os
import shutil
import subprocess
import time
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from flows import steps
from flows.environment import set_environment
from tasks import freshness
from tasks.artifacts import digest_folder
from tasks.freshness import Digests, write_sources
from tasks.named_files import files_named_by
from tasks.params import load

PARAMS = Path(__file__).parents[2] / "params.yaml"


def recordings(folder, n=60, suffix=".wav"):
    """`n` files of different bytes, all of one size, and a table that names them."""
    (folder / "audio").mkdir(parents=True)
    for i in range(n):
        (folder / f"audio/{i:03d}{suffix}").write_bytes(b"speech %03d" % i)
    rows = "".join(f"audio/{i:03d}{suffix},거실 불 켜 줘 {i},s{i % 4}\n" for i in range(n))
    (folder / "table.csv").write_text("path,transcript,speaker\n" + rows, encoding="utf-8")
    return folder / "table.csv"


def written(folder, *sets):
    """What write_sources says of every stage under these settings."""
    sources = folder / "build/sources"
    write_sources(load(PARAMS, sets=sets), sources)
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sources.glob("*.json")}


def of_corpus(folder, source, path, *sets):
    return written(folder, f"corpus.source={source}", f"corpus.{source}={path}", *sets)["corpus"]


def replace_in_place(path, content):
    """Other content of the same size and modification time under the same name, as `cp -p` leaves it."""
    times = path.stat()
    new = path.with_suffix(".new")
    new.write_bytes(content)
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(new, path)


def test_recordings_replaced_behind_an_unchanged_manifest_are_seen(tmp_path):
    table = recordings(tmp_path / "mine")
    before = of_corpus(tmp_path, "manifest", table)
    assert of_corpus(tmp_path, "manifest", table) == before, "nothing has changed"
    for i in range(20):
        (tmp_path / f"mine/audio/{i:03d}.wav").write_bytes(b"other  %03d" % i)
    assert of_corpus(tmp_path, "manifest", table)["sha256"] != before["sha256"]


@pytest.mark.parametrize("source", ["manifest", "folder", "hub"])
def test_a_file_replaced_with_its_size_and_time_kept_is_seen_and_a_touched_one_is_not(tmp_path, source):
    table = recordings(tmp_path / "mine", n=3)
    path = table if source == "manifest" else table.parent
    recording = tmp_path / "mine/audio/001.wav"
    os.utime(recording, (1_000_000_000, 1_000_000_000))
    before = of_corpus(tmp_path, source, path)
    os.utime(recording, (1_700_000_000, 1_700_000_000))
    assert of_corpus(tmp_path, source, path) == before, "touched, not changed"
    replace_in_place(recording, b"other! 001")
    assert of_corpus(tmp_path, source, path)["sha256"] != before["sha256"]
    replace_in_place(recording, b"speech 001")
    assert of_corpus(tmp_path, source, path) == before, "as it was, so that DVC finds what it made of it"


@pytest.mark.parametrize("source", ["manifest", "folder", "hub"])
def test_a_recording_that_goes_and_one_that_was_missing_and_comes_are_seen(tmp_path, source):
    table = recordings(tmp_path / "mine", n=3)
    path = table if source == "manifest" else table.parent
    whole = of_corpus(tmp_path, source, path)
    (tmp_path / "mine/audio/002.wav").rename(tmp_path / "kept.wav")
    without = of_corpus(tmp_path, source, path)
    assert without["sha256"] != whole["sha256"]
    (tmp_path / "kept.wav").rename(tmp_path / "mine/audio/002.wav")
    assert of_corpus(tmp_path, source, path) == whole


SPELLINGS = {
    "as it is": ("audio/거실 1.wav", "audio/거실 1.wav"),
    "backslashes": ("audio/거실 1.wav", r".\audio\거실 1.wav"),
    "decomposed on the disk": (unicodedata.normalize("NFD", "audio/거실 1.wav"), "audio/거실 1.wav"),
    "decomposed in the table": ("audio/거실 1.wav", unicodedata.normalize("NFD", "audio/거실 1.wav")),
    "another case": ("Audio/LIVING.WAV", "audio/living.wav"),
    "a name without its suffix": ("wavs/LJ001-0001.wav", "LJ001-0001"),
    "a name below a folder that the table does not name": ("clips/common_voice_ko_1.mp3", "common_voice_ko_1.mp3"),
    "below a folder of another machine": ("rec/one/a.wav", "/gone/since/rec/one/a.wav"),
    "of another system": ("rec/one/a.wav", r"D:\speech\rec\one\a.wav"),
    "percent-encoded": ("rec/a b.wav", "rec/a%20b.wav"),
    "above the table": ("../beside/a.flac", "../beside/a.flac"),
    "in a hidden folder": (".data/.a.wav", ".data/.a.wav"),
    "a separator of other tables in it": ("audio/a,b;c.wav", "audio/a,b;c.wav"),
}  # fmt: skip


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_table_leads_to_the_files_it_names_however_they_are_spelled(tmp_path, format, spelling):
    there, cell = SPELLINGS[spelling]
    path, table = tmp_path / "mine" / there, tmp_path / f"mine/table.{format}"
    table.parent.mkdir()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"one")
    path.with_name("not named.wav").write_bytes(b"two")
    frame = pd.DataFrame({"key": ["u1"], "clip": [cell], "words": ["가/나 다"]})
    if format == "parquet":
        frame.to_parquet(table)
    elif format == "jsonl":
        table.write_text(json.dumps({"clip": cell, "words": "가"}) + "\n", "utf-8")
    else:
        frame.to_csv(table, index=False, sep="\t" if format == "tsv" else ",")
    assert [Path(found).resolve() for found in files_named_by(table)] == [path.resolve()]


def test_absolute_paths_uris_and_nested_audio_cells_lead_to_their_files(tmp_path):
    audio = tmp_path / "else where/a b.wav"
    audio.parent.mkdir()
    audio.write_bytes(b"one")
    (tmp_path / "mine").mkdir()
    tables = {
        "absolute.csv": f"id|file\n1|{audio}\n",
        "uri.csv": f"file\n{audio.as_uri()}\n",
        "utf16.csv": f"file,text\n{audio},가\n",
        "kaldi.csv": f"utt1 {audio}\n",
        "nested.jsonl": json.dumps({"audio": {"path": str(audio)}}),
        "old.csv": f"file,text\r{audio},가\r",
    }
    for name, text in tables.items():
        table = tmp_path / "mine" / name
        table.write_bytes(text.encode("utf-16" if name.startswith("utf16") else "utf-8"))
        assert files_named_by(table) == [str(audio)], name
    nested = tmp_path / "mine/nested.parquet"
    pd.DataFrame({"audio": [{"bytes": None, "path": str(audio)}], "text": ["가"]}).to_parquet(nested)
    assert files_named_by(nested) == [str(audio)]
    (tmp_path / "mine/korean.csv").write_bytes("file,text\n소리.wav,가\n".encode("cp949"))
    (tmp_path / "mine/소리.wav").write_bytes(b"one")
    assert files_named_by(tmp_path / "mine/korean.csv") == [str(tmp_path / "mine/소리.wav")]


def test_names_that_no_file_can_have_are_passed_by(tmp_path):
    """Whatever stands in a table, the look at it ends well: texts, other bytes, half of a surrogate pair."""
    (tmp_path / "a.wav").write_bytes(b"one")
    cells = [
        "/" + "긴" * 300 + "/x",
        "\ud800",
        "a\0b",
        "/",
        "..",
        "../..",
        "~",
        "file://",
        "\\\\server\\a",
        "a.wav",
    ]
    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps({"path": cell}) + "\n" for cell in cells))
    assert str(tmp_path / "a.wav") in files_named_by(table)
    assert of_corpus(tmp_path, "manifest", table)["sha256"]


def test_file_names_of_any_bytes_count(tmp_path):
    recordings(tmp_path / "mine", n=1)
    odd = tmp_path / "mine/audio" / os.fsdecode(b"\xbc\xd2.wav")
    seen = []
    for content in (b"one", b"two"):
        odd.write_bytes(content)
        seen.append(of_corpus(tmp_path, "folder", tmp_path / "mine")["sha256"])
    assert seen[0] != seen[1]
    (tmp_path / "mine/loop").symlink_to("loop")
    assert of_corpus(tmp_path, "manifest", tmp_path / "mine/table.csv")["sha256"]


@pytest.mark.parametrize("content", [b"PAR1 cut off", b"", b"\xff\xfe\x00", b"[[[[", b"{\n"])
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_table_that_cannot_be_read_counts_by_its_content(tmp_path, content, suffix):
    table = tmp_path / f"t{suffix}"
    table.write_bytes(content)
    assert files_named_by(table) == []
    before = of_corpus(tmp_path, "manifest", table)
    table.write_bytes(content + b"more")
    assert of_corpus(tmp_path, "manifest", table) != before


def test_tools_beside_a_table_readings_and_tables_of_folders_that_name_files_elsewhere_count(tmp_path):
    table = recordings(tmp_path / "mine", n=2)
    outside = tmp_path / "outside.wav"
    outside.write_bytes(b"one")
    readings = tmp_path / "readings.csv"
    readings.write_text("written,spoken\n", "utf-8")
    sets = (f"corpus.readings={readings}",)
    seen = [of_corpus(tmp_path, "manifest", table, *sets)]
    (tmp_path / "mine/tools.json").write_text("[]")
    seen.append(of_corpus(tmp_path, "manifest", table, *sets))
    readings.write_text("written,spoken\nTV,티비\n", "utf-8")
    seen.append(of_corpus(tmp_path, "manifest", table, *sets))
    (tmp_path / "mine/metadata.csv").write_text("file_name,text\n../outside.wav,가\n", "utf-8")
    seen.append(of_corpus(tmp_path, "folder", table.parent))
    outside.write_bytes(b"two")
    seen.append(of_corpus(tmp_path, "folder", table.parent))
    assert all(one != other for i, one in enumerate(seen) for other in seen[:i])


def test_files_of_operating_systems_in_a_folder_count_for_nothing(tmp_path):
    folder = recordings(tmp_path / "mine", n=2).parent
    before = of_corpus(tmp_path, "folder", folder)
    for name in (".DS_Store", "._000.wav", "Thumbs.db", "desktop.ini", "~$notes.txt", ".git/index"):
        (folder / "audio" / name).parent.mkdir(exist_ok=True)
        (folder / "audio" / name).write_text("x")
    assert of_corpus(tmp_path, "folder", folder) == before


def test_links_to_folders_are_followed_and_a_link_upwards_ends(tmp_path):
    folder = recordings(tmp_path / "mine", n=2).parent
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/a.wav").write_bytes(b"one")
    (folder / "more").symlink_to(tmp_path / "linked")
    (folder / "round").symlink_to(folder)
    before = of_corpus(tmp_path, "folder", folder)
    (tmp_path / "linked/a.wav").write_bytes(b"two")
    assert of_corpus(tmp_path, "folder", folder) != before


def test_a_local_folder_that_comes_to_stand_before_a_hub_id_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert of_corpus(tmp_path, "hub", "team/speech")["sha256"] is None
    recordings(tmp_path / "team/speech", n=2)
    assert of_corpus(tmp_path, "hub", "team/speech")["sha256"]


def test_a_moved_project_is_as_fresh_as_before(tmp_path, monkeypatch):
    recordings(tmp_path / "old/mine", n=3)
    monkeypatch.chdir(tmp_path / "old")
    before = of_corpus(Path(), "manifest", "mine/table.csv")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    assert of_corpus(Path(), "manifest", "mine/table.csv") == before


def test_an_unchanged_file_is_read_once(tmp_path):
    """An hour of audio costs its reading once; a file whose times are too young to be trusted, again."""
    (tmp_path / "a.bin").write_bytes(b"one")
    cache = tmp_path / "cache.json"
    young = Digests(cache)
    young.of_file(tmp_path / "a.bin")
    young.save()
    assert not cache.is_file() or "a.bin" not in cache.read_text()
    time.sleep(freshness.SETTLED_NS / 1e9)
    first = Digests(cache)
    digest = first.of_file(tmp_path / "a.bin")
    first.save()
    entry = json.loads(cache.read_text())
    (place,) = entry
    entry[place][-1] = "as remembered"
    cache.write_text(json.dumps(entry))
    assert Digests(cache).of_file(tmp_path / "a.bin") == "as remembered", "it was read again"
    (tmp_path / "a.bin").write_bytes(b"two")
    assert Digests(cache).of_file(tmp_path / "a.bin") not in ("as remembered", digest)
    for damaged in ("", "[1]", '{"a": 1}', "{"):
        cache.write_text(damaged)
        assert len(Digests(cache).of_file(tmp_path / "a.bin")) == 64


def test_a_kill_in_the_middle_of_a_long_look_costs_the_last_minute_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(freshness, "SETTLED_NS", -1)
    monkeypatch.setattr(freshness, "KEEP_EVERY_S", -1)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    Digests(tmp_path / "cache.json").of_files([str(tmp_path / name) for name in ("a", "b")])
    assert {Path(place).name for place in json.loads((tmp_path / "cache.json").read_text())} == {"a", "b"}
    Digests(tmp_path / "cache.json").of_files([str(tmp_path / name) for name in ("c", "a")])
    known = json.loads((tmp_path / "cache.json").read_text())
    assert {Path(place).name for place in known} == {"a", "b", "c"}, "what was known before is kept"


def test_a_long_look_says_how_far_it_is(tmp_path, caplog, monkeypatch):
    (tmp_path / "a.bin").write_bytes(bytes(5_000_000))
    began = time.monotonic()
    clock = itertools.count(0, 3)
    monkeypatch.setattr("tasks.progress.time", SimpleNamespace(monotonic=lambda: began + next(clock)))
    with caplog.at_level(logging.INFO):
        Digests(tmp_path / "cache.json").of_file(tmp_path / "a.bin")
    assert "inputs that are new or changed: 5 MB in" in caplog.text


def test_the_digest_of_a_model_folder_is_the_one_that_trainings_know_it_by(tmp_path):
    for name in ("config.json", "model.safetensors", "sub/a.txt"):
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text(name)
    assert Digests(tmp_path / "c.json").of_folder(tmp_path / "model") == digest_folder(tmp_path / "model")


def test_a_look_at_a_thousand_known_files_reads_none_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(freshness, "SETTLED_NS", -1)
    table = recordings(tmp_path / "mine", n=1_000)
    first = Digests(tmp_path / "cache.json")
    digest = first.of_speech(table)
    first.save()
    opened: list[str] = []
    own = Path.open

    def watched(path, *arguments, **named):
        opened.append(path.name)
        return own(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", watched)
    assert Digests(tmp_path / "cache.json").of_speech(table) == digest
    assert not [name for name in opened if name.endswith(".wav")]
    (tmp_path / "mine/audio/000.wav").write_bytes(b"another")
    assert Digests(tmp_path / "cache.json").of_speech(table) != digest
    assert [name for name in opened if name.endswith(".wav")][-1] == "000.wav"


WORK = """
import pathlib, sys
stage = sys.argv[1]
files = sorted(pathlib.Path("mine/audio").glob("*.wav"))
if stage == "corpus":
    pathlib.Path("build/corpus").write_bytes(b"".join(f.read_bytes() for f in files))
elif b"cut off" in pathlib.Path("build/corpus").read_bytes():
    raise SystemExit("tasks.data.validate: DataError: 3 rows are truncated: must be whole. Next: mend them")
else:
    pathlib.Path("build/validated").touch()
"""
GRAPH = """
stages:
  corpus: {cmd: python work.py corpus, deps: [build/sources/corpus.json, work.py], outs: [build/corpus]}
  validate: {cmd: python work.py validate, deps: [build/corpus, work.py], outs: [build/validated]}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A DVC project whose stage `corpus` takes recordings of the user's; it is the current folder."""
    for name, text in {
        ".dvc/config": "[core]\n    no_scm = true\n",
        "dvc.yaml": GRAPH,
        "work.py": WORK,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    shutil.copyfile(PARAMS, tmp_path / "params.yaml")
    recordings(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "store"))
    set_environment(tmp_path)
    return tmp_path


def settle():
    steps.settle(True, ["corpus.source=manifest", "corpus.manifest=mine/table.csv"])


def test_truncated_recordings_are_mended_and_the_advice_works(project):
    """The run that failed had left the corpus fresh: the same errors came back for ever."""
    for i in range(3):
        Path(f"mine/audio/{i:03d}.wav").write_bytes(b"cut off")
    settle()
    steps.make("corpus")
    with pytest.raises(steps.StageFailed, match="3 rows are truncated"):
        steps.make("validate")
    settle()
    assert steps.is_fresh("corpus"), "nothing was mended yet"
    for i in range(3):
        Path(f"mine/audio/{i:03d}.wav").write_bytes(b"speech %03d" % i)
    settle()
    assert not steps.make("corpus").cached
    assert not steps.make("validate").cached
    settle()
    subprocess.run(["touch", "mine/audio/000.wav"], check=True)
    assert steps.find_fresh({"corpus": [], "validate": ["corpus"]}) == {"corpus", "validate"}
