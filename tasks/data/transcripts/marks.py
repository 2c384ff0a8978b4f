"""Marks of transcripts read: what is said stays, what transcribers added goes, the rest is named. Pure.

    read_marks("b/ (3개)/(세 개) 주세요 n/").text == "세 개 주세요"

The law: the sources of `Marked.pieces`, put together, are the transcript; a piece without a name is text as
it stands, one with a name is a mark. Where a mark is unknown, or says that the text is not what is heard, the
row is to be set aside and its text stays as it was written. Read again, a result does not change. The
conventions are the table `tasks.data.transcripts.conventions`.
"""

from __future__ import annotations

from typing import NamedTuple

from tasks.data.transcripts import conventions as table
from tasks.data.transcripts.patterns import PLAIN
from tasks.data.transcripts.reader import OF_BEFORE, Fillers, Piece, Reader, Side, joined
from tasks.errors import DataError


class SetAside(NamedTuple):
    """Why a row is set aside (a key of `conventions.REASONS`), and the mark as it is written."""

    reason: str
    mark: str


class Marked(NamedTuple):
    """A transcript read.

    Attributes:
        text: what is said; the transcript itself where something is `unknown`.
        removed: kinds of the marks taken away or resolved, in their order, each as often as it occurs.
        unknown: what the row is set aside for; empty for a row that can be used.
        pieces: the transcript cut into text and marks.
    """

    text: str
    removed: tuple[str, ...]
    unknown: tuple[SetAside, ...]
    pieces: tuple[Piece, ...]


def read_marks(
    text: str, *, version: str = table.MARKS_ID, side: Side = "spoken", fillers: Fillers = "keep"
) -> Marked:
    """What is said in a transcript (NFC) with marks; a text without any comes back as it is.

    Args:
        version: id of the table; "none" reads nothing.
        side: of `(3개)/(세 개)`, the one that is taken.
        fillers: whether marked fillers (`어/`, `(FP:음)`, `-그-`) stay as words.

    Raises:
        DataError: there is no table of this id.
    """
    if version == "none" or PLAIN.fullmatch(text):
        return Marked(text, (), (), (Piece(text, text),) if text else ())
    if version != table.MARKS_ID:
        raise DataError(
            f"marks of transcripts {version!r} are not known",
            f"corpus.marks is {table.MARKS_ID} or none",
            "correct it in params.yaml",
        )
    reader = Reader(side, fillers)
    pieces = tuple(reader.pieces(text))
    unknown = tuple(SetAside(piece.reason, piece.name) for piece in pieces if piece.reason)
    if unknown:
        return Marked(text, (), unknown, pieces)
    said = joined(pieces)
    if said != text:
        # Marks around marks may leave a new one behind; what is not clear at once is not guessed.
        left = tuple(piece for piece in reader.pieces(said) if piece.name)
        if left:
            return Marked(text, (), (SetAside(table.UNKNOWN, text.strip()),), pieces)
    removed = tuple(piece.name for piece in pieces if piece.name not in ("", OF_BEFORE))
    return Marked(said, removed, (), pieces)
