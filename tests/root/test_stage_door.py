"""`python -m tasks.<room>.<stage>`: paths in, values from params.yaml, one clear message out."""

import errno

import pytest

from tasks.errors import CapacityError, DataError
from tasks.stage import run_stage


def door(body, argv=(), inputs=None, section="prepare"):
    return run_stage("tasks.room.stage", section, body, inputs=inputs or {}, outputs={}, argv=list(argv))


def test_the_body_gets_its_section_and_its_paths(tmp_path):
    seen = {}
    code = run_stage(
        "tasks.room.stage",
        "validate",
        lambda params, **paths: seen.update(paths, rate=params.sample_rate_hz),
        inputs={"corpus": tmp_path},
        outputs={"out_dir": tmp_path / "default"},
        argv=["--out-dir", str(tmp_path / "given")],
    )
    assert code == 0
    assert seen == {"corpus": tmp_path, "out_dir": tmp_path / "given", "rate": 16000}


def test_a_missing_input_is_named_before_the_body_runs(tmp_path, capsys):
    code = door(lambda *_, **__: pytest.fail("ran"), inputs={"manifest": tmp_path / "none.parquet"})
    assert code == 2
    said = capsys.readouterr().err
    assert "none.parquet does not exist" in said
    assert "malgil run" in said


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DataError("row 3", "must be good", "mend it"), 2, "row 3: must be good. Next: mend it"),
        (CapacityError("disk", "is full", "free some"), 4, "Next: free some"),
        (OSError(errno.ENOSPC, "No space left", "/x/y"), 4, "no space left while writing /x/y"),
    ],
)
def test_a_known_error_becomes_one_message_and_an_exit_code(error, code, words, capsys):
    def body(params):
        raise error

    assert door(body) == code
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_wrong_settings_stop_the_stage(tmp_path, capsys):
    (tmp_path / "p.yaml").write_text("corpus: {}\n")
    assert door(lambda params: pytest.fail("ran"), argv=["--params", str(tmp_path / "p.yaml")]) == 2
    assert "corpus.seed: is missing" in capsys.readouterr().err


def test_a_bug_is_not_dressed_up_as_the_users_mistake():
    def body(params):
        raise KeyError("bug")

    with pytest.raises(KeyError):
        door(body)


def test_a_setting_of_another_section_is_lent_by_keyword():
    seen = {}
    code = run_stage(
        "tasks.room.stage",
        "validate",
        lambda params, **lent: seen.update(lent),
        inputs={},
        outputs={},
        borrowed={"normaliser": "prepare.normaliser"},
        argv=[],
    )
    assert code == 0
    assert seen == {"normaliser": "ko-1"}
