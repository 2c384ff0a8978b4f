"""The run's report: read back with an HTML parser, a decoder for its audio, and a browser where there is one."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from tasks.asr.quality.rates import jamo_confusions, rates
from tasks.asr.quality.slices import slices
from tasks.errors import ArtifactError
from tasks.params import load
from tasks.release.bounds import Trials
from tasks.report import write_report
from tests.report.browser import measure

JAMO_MAPS = 6  # three places, in domain and out of it
CHARTS = 6 + JAMO_MAPS  # two of each line, quality against size, and the slices

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
SVG_LEAVES = {
    "line",
    "rect",
    "circle",
    "polyline",
}  # written with a slash; html.parser tells them as start-end tags


class Page(HTMLParser):
    """Elements, their attributes and text, and every tag that is not closed in its turn."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.faults: list[str] = []
        self.sections: dict[str, str] = {}
        self._open: list[str] = []
        self._section = ""
        self.raw = path.read_text(encoding="utf-8")
        self.feed(self.raw)
        self.close()
        self.faults += [f"never closed: {tag}" for tag in self._open]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "h2":
            self._section = dict(attributes).get("id") or ""
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"closed out of turn: {tag} at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.text.append(data)
            self.sections[self._section] = self.sections.get(self._section, "") + data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        found = [attributes for name, attributes in self.elements if name == tag]
        return [
            a for a in found if all(value in (a.get(name) or "").split() for name, value in wanted.items())
        ]

    @property
    def data(self) -> dict:
        return json.loads(re.search(r'id="malgil-data">(.*?)</script>', self.raw, re.DOTALL)[1])


@pytest.fixture(scope="module")
def report(build: Path, tmp_path_factory: pytest.TempPathFactory, release: dict, stages: dict) -> Path:
    """In a project of its own: what this repository happens to hold in benchmarks/results must not count."""
    root = tmp_path_factory.mktemp("project")
    return write_report(build, release, stages, root / "report.html", root=root)


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page(report)


def test_every_element_is_closed_in_its_turn(page: Page, build: Path) -> None:
    assert page.faults == []
    assert Page(build / "validated/report.html").faults == []


def test_ids_are_unique_and_every_link_in_the_page_has_its_target(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = [a["href"] for a in page.all("a")]
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert [link for link in links if not link.startswith("#")] == ["validated/report.html"]


@pytest.mark.parametrize("which", ["run", "validation"])
def test_nothing_is_loaded_from_anywhere(report: Path, build: Path, which: str) -> None:
    page = Page(report if which == "run" else build / "validated/report.html")
    assert not re.search(r"https?://|//[a-z]+\.[a-z]{2,}/|@import|url\(", page.raw)
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            value = attributes.get(name)
            assert (
                value is None
                or value.startswith(("data:audio/flac;base64,", "#"))
                or value == "validated/report.html"
            )
        assert tag not in ("link", "iframe", "object", "embed", "img")
        assert not any(name.startswith("on") for name in attributes)
    assert [a.get("type") for a in page.all("script")] == ["application/json"]
    assert "default-src 'none'" in page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]


def test_figures_are_those_of_the_files(page: Page, build: Path, stages: dict) -> None:
    metrics = json.loads((build / "asr/evaluation/metrics.json").read_text())
    road = json.loads((build / "road/metrics.json").read_text())
    llm = json.loads((build / "llm/evaluation/metrics.json").read_text())
    figures = page.sections["figures"]
    for rate in (
        metrics["onnx_int8"]["cer_unseen_sentences"],
        metrics["onnx_int8"]["cer_unseen_voices"],
        metrics["onnx_int8"]["wer_unseen_sentences"],
        llm["exact_match"]["Q8_0"],
        road["exact_match_unseen_voices"],
    ):
        assert f"{rate * 100:.2f}%" in figures
    assert page.data["asr"]["metrics"] == metrics
    assert page.data["llm"]["metrics"] == llm
    assert page.data["stages"] == stages
    assert page.data["data"]["rows"] == json.loads((build / "validated/result.json").read_text())["rows"]


def test_every_voice_is_shown_unseen_first_and_worst_first(page: Page) -> None:
    voices = page.data["asr"]["voices"]
    assert [v["unseen"] for v in voices] == sorted((v["unseen"] for v in voices), reverse=True)
    for unseen in (True, False):
        own = [v["cer"] for v in voices if v["unseen"] is unseen]
        assert own and own == sorted(own, reverse=True)
    assert all(v["voice"] in page.sections["voices"] for v in voices)


def test_the_worst_utterances_can_be_heard(page: Page, build: Path) -> None:
    worst = page.data["asr"]["worst"]
    assert 0 < len(worst) <= 12
    assert [one["cer"] for one in worst] == sorted((one["cer"] for one in worst), reverse=True)
    kinds = [
        one
        for part in page.data["asr"]["gallery"]
        if part["group"] == "out of domain" and not part["slice"].startswith("by ")
        for one in part["worst"]
    ]
    assert kinds and not {one["utterance_id"] for one in kinds} & {one["utterance_id"] for one in worst}
    audio = page.all("audio")
    assert len(audio) == len(worst) + len(kinds)
    worst += kinds
    rows = pd.read_parquet(build / "prepared/asr/utterances.parquet").set_index("utterance_id")
    store = np.load(build / "prepared/asr/audio.npy")
    for element, one in zip(audio, worst, strict=True):
        samples, rate_hz = soundfile.read(
            io.BytesIO(base64.b64decode(element["src"].partition(",")[2])), dtype="int16"
        )
        row = rows.loc[one["utterance_id"]]
        assert rate_hz == 16_000
        assert np.array_equal(samples, store[row["offset"] : row["offset"] + row["samples"]])
        assert one["utterance_id"] in element["aria-label"]


def test_every_slice_is_shown_with_its_interval_and_out_of_domain_with_every_kind(page: Page) -> None:
    rows = [row for row in page.data["asr"]["metrics"]["onnx_int8"]["slices"] if row["group"] != "speaker"]
    kinds = {"sentences", "quiet", "loud", "babble", "hum", "telephone", "reverberation"}
    assert kinds | {"known voices", "unseen voices", "out of domain"} <= {row["slice"] for row in rows}
    chart = next(
        a["aria-label"] for a in page.all("svg", **{"class": "chart"}) if "by slice" in a["aria-label"]
    )
    for row in rows:
        assert row["slice"] in page.sections["slices"] and row["slice"] in chart
        assert f"{row['cer'] * 100:.2f}%" in page.sections["slices"]
        if row["cer_interval"]:
            assert f"{row['cer_interval'][0] * 100:.2f}% to" in page.sections["slices"]
    assert "No out-of-domain slice" not in page.sections["slices"]


def test_a_corpus_without_an_out_of_domain_slice_is_said_to_have_none(
    build: Path, tmp_path: Path, release: dict, stages: dict
) -> None:
    copy = tmp_path / "build"
    shutil.copytree(build, copy)
    path = copy / "asr/evaluation/utterances.parquet"
    table = pd.read_parquet(path)
    table = table[table["split"] != "test_ood"]
    table.to_parquet(path)
    settings = load(Path("params.yaml"), quick=True).evaluate_asr
    metrics = {
        name: rates(own, settings)
        | {"slices": slices(own, settings), "confusions": jamo_confusions(own), "sha256": "ab" * 32}
        for name, own in table.groupby("system")
    }
    (copy / "asr/evaluation/metrics.json").write_text(json.dumps(metrics | {"normaliser": "ko-1"}))
    page = Page(write_report(copy, release, stages, tmp_path / "report.html", root=tmp_path))
    assert page.faults == []
    assert "No out-of-domain slice" in page.sections["slices"]
    assert "no out-of-domain slice" in page.sections["figures"]


def test_jamo_confusions_are_those_that_were_counted(page: Page) -> None:
    found = page.data["asr"]["metrics"]["onnx_int8"]["confusions"]["search"]
    for part in ("in_domain", "out_of_domain"):
        assert 0 < len(found[part]) <= 20
        assert [row["n"] for row in found[part]] == sorted((row["n"] for row in found[part]), reverse=True)
        assert all(row["example"]["said"] in page.sections["jamo"] for row in found[part])


def test_confusions_are_drawn_place_by_place_as_they_were_counted(page: Page) -> None:
    counted = page.data["asr"]["metrics"]["onnx_int8"]["jamo_counts"]
    rows = [(part, row) for part in counted for row in counted[part]]
    assert len(page.all("rect", **{"class": "heat"})) == len(rows) > 10
    assert len({(part, row["place"]) for part, row in rows}) == JAMO_MAPS
    for part, name in (("in_domain", "in domain"), ("out_of_domain", "out of domain")):
        worst = max(counted[part], key=lambda row: (row["place"] == "initial", row["n"] / row["of"]))
        told = f"{worst['said']} {'heard as ' + worst['heard'] if worst['heard'] else 'left out'}: {worst['n']} of"
        (picture,) = [
            chart["aria-label"]
            for chart in page.all("svg", **{"class": "chart"})
            if chart["aria-label"].startswith(f"Initial consonants said and heard, {name}")
        ]
        assert told in picture


def test_marks_of_the_page_are_the_edits_that_were_counted(page: Page) -> None:
    shown = page.data["asr"]["worst"] + [one for part in page.data["asr"]["gallery"] for one in part["worst"]]
    counted = sum(one["edits"] for one in shown)
    legend = 3
    marked = [a for kind in ("replace", "delete", "insert") for a in page.all("span", **{"class": kind})]
    assert len(marked) == counted + legend


def test_what_came_from_models_and_users_is_escaped(page: Page) -> None:
    assert "I am sorry </script>" in page.sections["confusion"]
    assert page.raw.count("</script>") == 1
    assert "below the floor 0.95 <b>" in page.sections["release"]
    assert page.data["llm"]["wrong"][0]["hypothesis"] == "I am sorry </script>"


def test_it_says_synthetic_and_verdicts(page: Page) -> None:
    assert "SYNTHETIC" in page.sections[""]
    for section in (
        "figures",
        "data",
        "asr",
        "slices",
        "voices",
        "jamo",
        "worst",
        "llm",
        "confusion",
        "road",
    ):
        assert "synthetic" in page.sections[section], section
    assert "promote" in page.sections["release"] and "reject" in page.sections["release"]
    assert "store/published/malgil-asr/v1" in page.sections["release"]


def test_floors_are_shown_with_n_interval_limit_and_outcome(page: Page) -> None:
    shown = " ".join(page.sections["release"].split())
    low, high = (Trials(0.03, 900.0).lower(0.95), Trials(0.03, 900.0).upper(0.95))
    assert f"CER3.00%3006{low:.2%} to {high:.2%}≤ 4.00%decide.max_cer… unproven" in shown
    assert "Recogniser: floors" in shown and "Language model: floors" not in shown


def test_charts_have_words_for_those_who_do_not_see_them(page: Page) -> None:
    charts = page.all("svg", **{"class": "chart"})
    assert len(charts) == CHARTS
    assert all(chart["role"] == "img" and len(chart["aria-label"]) > 20 for chart in charts)


@pytest.mark.parametrize(
    ("line", "there", "gone"),
    [
        ("asr", ("asr", "slices", "voices", "jamo", "worst"), ("llm", "confusion", "road")),
        ("llm", ("llm", "confusion"), ("asr", "slices", "voices", "jamo", "worst", "road")),
    ],
)
def test_a_run_of_one_line_says_what_was_not_in_it(
    build: Path, tmp_path: Path, line: str, there: tuple, gone: tuple, release: dict, stages: dict
) -> None:
    """The files of the other line are those of an earlier run and must not be shown as this one's."""
    made = {name: stages[name] for name in ("corpus", f"evaluate_{line}")}
    page = Page(write_report(build, {line: release[line]}, made, tmp_path / "report.html"))
    assert page.faults == []
    for section in gone:
        assert "Not in this run." in page.sections[section], section
        assert page.data[section] is None if section in page.data else True
    for section in there:
        assert "Not in this run." not in page.sections[section], section
    assert "not in this run" in page.sections["figures"]
    assert page.sections["release"].count("Not in this run.") == 1


def test_a_run_of_nothing_is_a_page_all_the_same(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path / "build", {}, {}, tmp_path / "report.html", root=tmp_path))
    assert page.faults == []
    assert page.data["asr"] is None and page.data["data"] is None


def test_no_audio_beyond_the_limit_and_none_when_it_is_gone(
    page: Page, build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: dict, stages: dict
) -> None:
    monkeypatch.setattr("tasks.report.clips.MAX_TOTAL_BYTES", 100_000)
    short = write_report(build, release, stages, tmp_path / "short.html")
    assert 0 < len(Page(short).all("audio")) < len(page.all("audio"))
    copy = tmp_path / "build"
    shutil.copytree(build, copy)
    (copy / "prepared/asr/audio.npy").unlink()
    silent = Page(write_report(copy, release, stages, tmp_path / "silent.html"))
    assert silent.all("audio") == []
    assert "not carried in this page" in silent.sections["worst"]


def test_the_from_scratch_experiment_is_shown_when_it_was_made(
    build: Path, tmp_path: Path, release: dict, stages: dict
) -> None:
    history = [{"step": step, "validation_cer": 1 / step} for step in (1, 2, 4)]
    folder = tmp_path / "benchmarks/results"
    folder.mkdir(parents=True)
    (folder / "asr_from_scratch.json").write_text(
        json.dumps(
            {"fine_tuned": {"history": history}, "from_scratch": {"history": history}, "machine": "here"}
        )
    )
    page = Page(write_report(build, release, stages, tmp_path / "report.html", root=tmp_path))
    assert "fine tuned 100% to 25%; from fresh weights 100% to 25%" in " ".join(
        a["aria-label"] for a in page.all("svg", **{"class": "chart"})
    )


def test_a_broken_metrics_file_is_named_and_the_old_report_kept(
    build: Path, tmp_path: Path, release: dict, stages: dict
) -> None:
    copy = tmp_path / "build"
    shutil.copytree(build, copy)
    (copy / "asr/evaluation/metrics.json").write_text("{")
    target = tmp_path / "report.html"
    target.write_text("the report of an earlier run")
    with pytest.raises(ArtifactError, match=r"metrics\.json is not JSON"):
        write_report(copy, release, stages, target)
    assert target.read_text() == "the report of an earlier run"


def test_size_stays_small(report: Path) -> None:
    assert report.stat().st_size < 6_000_000


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium, which .ci/run installs")
def test_a_browser_lays_it_out_without_complaint(report: Path, tmp_path: Path) -> None:
    """Renders at 400 px: the page must not be wider than the screen, and nothing may be refused or fail to parse."""
    asked = (
        "{wide:d.documentElement.scrollWidth,screen:innerWidth,sections:d.querySelectorAll('h2').length,"
        "charts:d.querySelectorAll('svg.chart').length,sound:d.querySelectorAll('audio').length}"
    )
    seen = measure(report, asked, tmp_path)
    assert seen["wide"] <= seen["screen"]
    assert (seen["sections"], seen["charts"], seen["sound"]) == (13, CHARTS, len(Page(report).all("audio")))
