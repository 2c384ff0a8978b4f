from pathlib import PurePath

import pytest

from tasks.data.own.system_files import is_system_file

LEFT = ("._a1.wav", ".DS_Store", "sub/.DS_Store", "Thumbs.db", "THUMBS.DB", "Desktop.ini", "~$list.csv")
LEFT += ("__MACOSX/mine/a1.wav", ".git/a1.wav", "mine/.hidden/a1.wav", "@eaDir/a1.wav")


@pytest.mark.parametrize("path", LEFT)
def test_what_an_operating_system_left_is_told_by_its_name(path: str) -> None:
    assert is_system_file(path) and is_system_file(PurePath(path))


@pytest.mark.parametrize(
    "path", ("a1.wav", "./a1.wav", "../x/a1.wav", "a.b/._", "thumbs/db.wav", "거실.wav", "")
)
def test_a_users_own_files_are_not_taken_for_it(path: str) -> None:
    assert is_system_file(path) is (path == "a.b/._")
