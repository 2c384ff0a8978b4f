"""Rows to items of an evaluation: whatever the cells hold, every row is an item or is set aside by name."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.asr.judging.items import OWN, REASONS, SetAside, choose_items, count_reasons
from tasks.asr.judging.rows import Rows
from tasks.data.normalisers import normalise
from tasks.data.own.gathered import with_origin

ODD = "켜줘ㄱᄀ漢 aA1?'\"\0\n\u2028\u3000\ufeff/\ud800"
CELLS = st.one_of(
    st.none(),
    st.just(float("nan")),
    st.integers(),
    st.booleans(),
    st.text(ODD, max_size=12),
    st.just("켜 줘"),
)
COLUMNS = ("speaker", "split", "snr_db", "synthetic", "utterance_id", "row", "block", "reference")


@pytest.fixture(scope="module")
def audio() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.wav").write_bytes(b"here")
        yield Path(folder)


@given(data=st.data())
@settings(max_examples=int(os.environ.get("MALGIL_FUZZ_EXAMPLES", "100")), deadline=None)
def test_rows_in_are_items_and_rows_set_aside(data: Any, audio: Path) -> None:
    count = data.draw(st.integers(0, 6))
    whole = CELLS.filter(lambda cell: "\ud800" not in str(cell))  # the doors set such a path aside
    paths = st.one_of(st.just("a.wav"), st.just("long" * 2000), whole)
    kinds = {
        "path": paths,
        "transcript": CELLS,
        **dict.fromkeys(data.draw(st.sets(st.sampled_from(COLUMNS))), CELLS),
    }
    frame = pd.DataFrame(
        {
            name: pd.Series([data.draw(kind) for _ in range(count)], dtype=object)
            for name, kind in kinds.items()
        }
    )
    limit = data.draw(st.none() | st.integers(1, 4))
    for normaliser in ("ko-1", "ko-3"):
        rows = Rows(
            with_origin(frame, ["a.csv"] * count, range(2, count + 2)),
            audio,
            "a table",
            "manifest",
            (),
            False,
        )
        items, left = choose_items(rows, normaliser, (), ("transcript",), limit)
        left_table = pd.DataFrame(left, columns=SetAside._fields)
        for table in (items.frame.drop(columns="file"), left_table):
            table.to_csv().encode()  # can be written
        numbers = [*items.frame["row"], *(one.row for one in left)]
        assert sorted(numbers) == list(range(1, count + 1))
        assert sum(count_reasons(left).values()) == len(left) and {one.reason for one in left} <= set(REASONS)
        for reference, written in zip(items.frame["reference"], items.frame[f"{OWN}transcript"], strict=True):
            assert reference == normalise(written, normaliser) != ""
