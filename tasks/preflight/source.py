"""The data source before a run: is it there, can it be read, do ten recordings decode to their end?

The stages' own readers do the looking (`tasks.data`). A table is read whole as long as that takes seconds;
recordings are sampled: what a few of them show is a fault only where the stage would surely end with it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.errors import DataError, MalgilError, MissingDependencyError
from tasks.preflight.finding import Check, Finding, Subject, fault, ok, warning
from tasks.preflight.record import stamp

MOST_ROWS = 20_000  # a larger table is looked at by its columns and a sample alone
DECODED, LOOKED_FOR = 10, 2_000
SURELY_BAD = 3  # of ten: with 2% of bad files in all, fewer than one check in a thousand would see as many
NAME = "data source"


def look(subject: Subject) -> Iterator[Finding]:
    """The source of `corpus.source`."""
    corpus = subject.params.corpus
    if corpus.source == "builtin":
        yield from _builtin(subject)
    elif corpus.source == "hub":
        yield from _hub(subject)
    else:
        yield from _table(subject, corpus)


def stamp_of(subject: Subject) -> Any:
    """The files that the settings name; the recordings of a manifest are looked at each time."""
    corpus = subject.params.corpus
    named = (corpus.manifest, corpus.folder, corpus.hub, corpus.readings)
    beside = Path(corpus.manifest).parent / "tools.json" if corpus.manifest else ""
    return [stamp(name) for name in (*named, beside)]


def _builtin(subject: Subject) -> Iterator[Finding]:
    from importlib.util import find_spec

    from tasks.data.plan import draw_sentences

    if find_spec("espeakng_loader") is None:
        raise MissingDependencyError(
            "espeakng_loader is not installed", "the built-in corpus is spoken by espeak-ng", "make setup"
        )
    sentences = draw_sentences(subject.params.corpus)
    yield ok(NAME, f"built in, {len(sentences):,} sentences")


def _hub(subject: Subject) -> Iterator[Finding]:
    """A Hub id is read where it lies in the cache; else only asked for, and fetched by the run."""
    from tasks.data.hub import fetch, hub_name

    corpus = subject.params.corpus
    name = corpus.hub
    if Path(name).is_dir():
        yield from _table(subject, corpus)
        return
    asked = hub_name(name)
    try:
        if asked is None:
            raise ValueError("no such folder")
        folder = fetch(asked, "dataset", patterns=["README.md"])
    except (OSError, ValueError) as error:  # the Hub's errors are of one kind or the other
        raise DataError(
            f"corpus.hub {name!r} is no local folder and cannot be reached ({_line(error)})",
            "names a folder here, or a data set of the Hub that this machine reaches and may read",
            "correct the name or revision; for a private one set HF_TOKEN; offline, name a local copy",
        ) from error
    if next(folder.rglob("*.parquet"), None) is None:
        yield ok(NAME, f"{name} is on the Hub; its rows are looked at once it is fetched")
    else:
        yield from _table(subject, corpus.model_copy(update={"hub": str(folder)}))


def _table(subject: Subject, corpus: Any) -> Iterator[Finding]:
    frame, origin, where = _rows(corpus)
    yield ok(NAME, f"{where}: {len(frame):,} rows")
    if len(frame) <= MOST_ROWS:
        yield from _commands(subject, corpus)
    yield from _unread(_said(frame, subject, corpus), subject)
    if corpus.source == "folder" and origin is not None:  # its listing tells of every change
        yield from _recordings(frame, origin, subject)


def look_at_recordings(subject: Subject) -> Iterator[Finding]:
    """The recordings of a manifest, each time: that the manifest is the same says nothing of them."""
    if subject.params.corpus.source != "manifest":
        return
    try:
        frame, origin, _ = _rows(subject.params.corpus)
    except MalgilError:
        return  # `look` says so
    if origin is not None:
        yield from _recordings(frame, origin, subject)


def _rows(corpus: Any) -> tuple[Any, Path | None, str]:
    """The rows as the door reads them, the folder of their recordings (none of a data set), a name."""
    from tasks.data.source import read_source

    found = read_source(corpus)
    return found.frame, None if corpus.source == "hub" else found.origin, str(found.path)


def _said(frame: Any, subject: Subject, corpus: Any) -> list[str]:
    """At most 2,000 transcripts as the normaliser gets them; of a large table as they are written."""
    from tasks.data.source import split_rows

    if len(frame) <= MOST_ROWS:
        frame = split_rows(corpus, None, subject.params.prepare.normaliser)[1]
        if "marks_unknown" in frame:
            frame = frame[frame["marks_unknown"] == ""]  # set aside already
    return _spread(frame["transcript"].fillna("").astype(str).tolist(), LOOKED_FOR)


def _commands(subject: Subject, corpus: Any) -> Iterator[Finding]:
    """The stages `commands` and `prepare_llm` without audio: splits, readings, tools, calls."""
    from tasks.data.prepare_llm import mistakes
    from tasks.data.source import take_commands
    from tasks.llm.chat import Tools

    commands, definitions = take_commands(corpus, subject.params.prepare.normaliser)
    tools = Tools(definitions)
    if "llm" not in subject.lines:
        return
    if commands.empty:
        raise DataError(
            "no row has a tool_call",
            "the language model learns which call a sentence means",
            "fill the column tool_call, or run the recogniser alone: --line asr",
        )
    wrong = list(mistakes(commands, tools))
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(commands)} commands: {'; '.join(wrong[:5])}",
            "a command needs text, a tool call of tools.json, and a sentence that no other split holds",
            "correct the rows of the manifest, or tools.json, and start the same command again",
        )
    yield ok(NAME, f"{len(commands):,} commands, {len(tools.names)} tools")


def _unread(texts: list[str], subject: Subject) -> Iterator[Finding]:
    """Characters that the chain of normalisers leaves and a vocabulary of jamo has no symbol for."""
    from tasks.asr.checkpoints.vocabulary import Vocabulary
    from tasks.data.normalisers import normalise

    if subject.params.train_asr.vocabulary != "jamo":
        return
    vocabulary, chain = Vocabulary.of_jamo(), subject.params.prepare.normaliser
    left = [(text, vocabulary.missing([normalise(text, chain)])) for text in texts]
    with_some = [(text, characters) for text, characters in left if characters]
    if with_some:
        all_of = sorted({c for _, characters in with_some for c in characters})
        yield warning(
            NAME,
            f"{len(with_some)} of {len(texts)} transcripts looked at keep {' '.join(map(repr, all_of[:20]))} "
            f"after {chain}, as {with_some[0][0]!r}",
            "the recogniser has no symbol for them: such rows are set aside",
            "choose another prepare.normaliser, add their readings (corpus.readings), or spell them out",
        )


def _recordings(frame: Any, origin: Path, subject: Subject) -> Iterator[Finding]:
    """At most 2,000 recordings looked for as the stage does, ten of those found decoded to their end."""
    from tasks.data.measure import measure
    from tasks.data.own.intake import find_recordings
    from tasks.data.own.reconciliation import place

    rows = frame.iloc[_spread(list(range(len(frame))), LOOKED_FOR)]
    found = find_recordings(rows, origin, is_hub=False)
    told = zip(rows["origin_file"], rows["origin_line"], rows["origin_path"], found, strict=True)
    lost = [f"{place(file, line)}: {path!r}, {one.how}" for file, line, path, one in told if not one.path]
    allowed = subject.params.validate_.max_bad_share
    if lost:
        what = f"{len(lost)} of {len(rows)} recordings looked for are not there, as in {lost[0]}"
        rule = f"paths are relative to {origin}"
        next_step = "restore the files, or correct the paths (corpus.audio_column names their column)"
        surely = len(lost) > allowed * len(frame) or (len(lost) >= SURELY_BAD and len(lost) * 10 > len(rows))
        if surely:
            yield fault(NAME, DataError(what, rule, next_step))
        else:
            yield warning(NAME, what, rule, next_step)
    there = [one.path for one in found if one.path]
    decoded = [(path, measure(path)) for path in _spread(there, DECODED)]
    bad = [f"{path} ({found.state}: {found.detail})" for path, found in decoded if found.state != "ok"]
    if bad:
        count = f"{len(bad)} of {len(decoded)}"
        what = f"{count} recordings decoded to their end are no whole audio: {'; '.join(bad[:5])}"
        rule = f"at most {allowed:.0%} of the rows may be set aside (validate.max_bad_share)"
        next_step = "copy them again from their origin, or remove their rows"
        if len(bad) > allowed * len(frame) or len(bad) >= SURELY_BAD:
            yield fault(NAME, DataError(what, rule, next_step))
        else:
            yield warning(NAME, what, rule, next_step)
    elif decoded:
        yield ok(NAME, f"{len(decoded)} recordings decode to their end")


def _spread(items: list[Any], count: int) -> list[Any]:
    """At most `count` of them, from the first to the last."""
    if len(items) <= count:
        return items
    return [items[round(place * (len(items) - 1) / (count - 1))] for place in range(count)]


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


CHECK = Check(NAME, ("corpus", "prepare", "validate", "train_asr"), look, stamp=stamp_of)
RECORDINGS = Check(NAME, ("corpus", "validate"), look_at_recordings)
