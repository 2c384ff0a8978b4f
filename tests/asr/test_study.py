"""The transfer study: what its plot may claim, and that a killed study goes on with the runs not yet done."""

import math
from pathlib import Path

import pytest

from tasks.artifacts import read_json, write_json
from tasks.asr.transfer import study
from tasks.asr.transfer.reading import caveats, compare, data_needed, overall
from tasks.errors import DataError
from tasks.settings import StudyAsr
from tests.tiny_asr import tiny_settings

SIZES = (50, 100, 300, 1000)
SMALL = StudyAsr(sizes=(3, 6), steps=(1, 2), seeds=(1, 2), batch_seconds=3.0, test_utterances=3)


@pytest.mark.parametrize(
    ("level", "low", "high"),
    [
        (0.6, 0, 50),  # already better at the smallest size
        (0.1, 1000, math.inf),  # never gets there
        (0.4, 100, 100),
        (0.35, math.sqrt(100 * 300), math.sqrt(100 * 300)),  # halfway on the logarithmic axis
    ],
)
def test_data_needed_is_read_between_points_and_bounded_beyond(level: float, low: float, high: float) -> None:
    assert data_needed(SIZES, (0.5, 0.4, 0.3, 0.2), level) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("slow", "quick", "verdict"),
    [
        ((1.0, 1.0, 1.0, 1.0), (0.5, 0.4, 0.3, 0.2), "holds"),  # from scratch never gets there
        ((0.9, 0.8, 0.6, 0.4), (0.6, 0.4, 0.2, 0.1), "holds"),  # 1000 against 100
        ((0.5, 0.4, 0.3, 0.2), (0.45, 0.35, 0.28, 0.15), "fails"),
        ((1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 0.95), "cannot be read"),  # nobody learned anything
        ((0.6, 0.5, 0.4, 0.3), (0.3, 0.25, 0.2, 0.15), "holds"),
    ],
)
def test_the_claim_holds_fails_or_cannot_be_read(
    slow: tuple[float, ...], quick: tuple[float, ...], verdict: str
) -> None:
    assert overall(compare(SIZES, slow, quick)) == verdict


def test_a_ratio_beyond_the_plot_is_a_bound() -> None:
    best = next(
        entry for entry in compare(SIZES, (1.0, 1.0, 1.0, 1.0), (0.5, 0.4, 0.3, 0.2)) if entry["level"] == 0.5
    )
    assert best["ratio"] == [pytest.approx(20), None]
    assert best["slow"] == [1000, None]


def test_what_weakens_a_verdict_is_said() -> None:
    assert [said.split()[0] for said in caveats((1.0, 0.99), 1.2, 5, 6)] == ["from", "the", "only"]
    assert caveats((1.0, 0.5), 8.0, 6, 6) == []


def test_a_study_goes_on_with_what_is_not_done(
    prepared: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = tiny_settings(encoder)
    places = {"prepared": prepared, "out_dir": tmp_path / "out", "work_dir": tmp_path / "work"}
    with pytest.raises(DataError, match="no finished run"):
        study.study(SMALL, training, **places, so_far=True)
    first = study.study(SMALL, training, **places)
    assert first["runs_done"] == first["runs_planned"] == 15
    assert first["synthetic"] is True
    assert {(row["method"], row["utterances"], row["seeds"]) for row in first["table"]} == {
        (method, size, 2) for method in study.METHODS for size in SMALL.sizes
    }
    assert (tmp_path / "out" / "asr_transfer.svg").read_text("utf-8").startswith("<?xml")

    (tmp_path / "work" / "head-6-seed2.json").unlink()
    other = tmp_path / "work" / "full-3-seed1.json"
    write_json(other, {**read_json(other), "steps": 99})  # a run of other settings is not one of this study
    partial = study.study(SMALL, training, **places, so_far=True)
    assert partial["runs_done"] == 13
    trained: list[str] = []
    whole = study.train_steps

    def counted(*arguments: object, **named: object) -> object:
        trained.append(str(arguments[8]))
        return whole(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(study, "train_steps", counted)
    second = study.study(SMALL, training, **places)
    assert sorted(trained) == ["full-3-seed1", "head-6-seed2"]
    assert second["table"] == first["table"]


def test_head_only_leaves_the_encoder_alone_and_sets_are_nested(
    prepared: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, tuple[object, set[int]]] = {}
    whole = study.train_steps

    def watched(model: object, plans: object, store: object, *rest: object, **named: object) -> object:
        before = model.wav2vec2.encoder.layers[0].attention.q_proj.weight.detach().clone()  # type: ignore[attr-defined]
        outcome = whole(model, plans, store, *rest, **named)  # type: ignore[arg-type]
        after = model.wav2vec2.encoder.layers[0].attention.q_proj.weight  # type: ignore[attr-defined]
        seen[str(rest[5])] = (before.equal(after), set(store.offsets.tolist()))  # type: ignore[attr-defined]
        return outcome

    monkeypatch.setattr(study, "train_steps", watched)
    settings = SMALL.model_copy(update={"seeds": (1,)})
    study.study(
        settings, tiny_settings(encoder), prepared=prepared, out_dir=tmp_path, work_dir=tmp_path / "w"
    )
    assert seen["head-6-seed1"][0] is True
    assert seen["full-6-seed1"][0] is False
    assert seen["head-3-seed1"][1] == seen["scratch-3-seed1"][1] < seen["full-6-seed1"][1]


def test_too_few_utterances_are_named(prepared: Path, encoder: Path, tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"sizes": (3, 999)})
    with pytest.raises(DataError, match="999"):
        study.study(settings, tiny_settings(encoder), prepared=prepared, out_dir=tmp_path, work_dir=tmp_path)
