"""The other files that settings name: the sentences of the n-gram model."""

from collections.abc import Iterator
from pathlib import Path

from tasks.errors import DataError, explain_os_error
from tasks.preflight.finding import Check, Finding, Subject, ok
from tasks.preflight.record import stamp

NAME = "sentences"


def look(subject: Subject) -> Iterator[Finding]:
    """`language_model_asr.text`: there, and UTF-8."""
    name = subject.params.language_model_asr.text
    if not name:
        return
    try:
        lines = Path(name).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is not UTF-8", "a sentence per line, in UTF-8", "save it as UTF-8"
        ) from error
    except OSError as error:
        raise explain_os_error(error, name) from error
    yield ok(NAME, f"{name}: {len(lines):,} lines")


CHECK = Check(
    NAME,
    ("language_model_asr",),
    look,
    lines=("asr",),
    stamp=lambda subject: stamp(subject.params.language_model_asr.text),
)
