"""The rules a row of the manifest must satisfy, as one table. Pure: no files, no Great Expectations.

`row_rules` fills in the values of params.yaml. Each rule names one column made by `tasks.data.enrich` and one
Great Expectations expectation, so that the same list drives the validation run, the quarantine reasons and
the report.
"""

from typing import Any, NamedTuple

from tasks.data.manifest import KNOWN_SPLITS
from tasks.data.transcripts.conventions import REASONS as SET_ASIDE_FOR
from tasks.settings import Validate

UNSEEN_VOICES = "test_voices"  # the split whose speakers may be in no split that learns
DURATION_TOLERANCE_S = 0.05  # between manifest and file: rounding in a manifest, not a lost word

# column: (kind of value, what it holds)
REQUIRED = {
    "utterance_id": ("text", "a name of its own for every row"),
    "path": ("text", "the audio file, relative to the manifest's folder"),
    "sha256": ("text", "hex SHA-256 of the file"),
    "duration_s": ("a number", "length in seconds"),
    "sample_rate_hz": ("a number", "sample rate in Hz"),
    "transcript": ("text", "what is said"),
    "speaker": ("text", "who says it"),
    "split": ("text", "one of " + ", ".join(KNOWN_SPLITS)),
}
OPTIONAL: dict[str, Any] = {"sentence_ids": "", "joined": 1, "snr_db": float("nan"), "tool_call": ""}
# As Great Expectations names types. It asks the dtype of a number column and every value of an object column;
# it does not know the string dtype of pandas 3, so text is given to it as objects.
DTYPES = {
    "text": ["str"],
    "a number": ["int64", "int32", "int16", "uint32", "float64", "float32", "Int64", "Float64"],
}


class RowRule(NamedTuple):
    """One rule: the reason given to rows that break it, the expectation, and a sentence for readers."""

    reason: str
    column: str
    expectation: str
    arguments: dict[str, Any]
    says: str


def row_rules(params: Validate) -> list[RowRule]:
    """The rules in the order in which a row's reasons are listed."""
    return [*_manifest_rules(), *_file_rules(params), *_text_rules(params), *_rules_between_rows()]


def _manifest_rules() -> list[RowRule]:
    return [
        _alone("empty_field", "empty_fields", "every required field has a value"),
        _one_of("unknown_split", "split", KNOWN_SPLITS, f"the split is one of {', '.join(KNOWN_SPLITS)}"),
        _alone("duplicate_id", "same_id_as", "an utterance id names one row; the first is kept"),
        _one_of(
            "bad_tool_call",
            "tool_call_is_json",
            (True,),
            "the tool call is empty or JSON with name and arguments",
        ),
    ]


def _file_rules(params: Validate) -> list[RowRule]:
    rate, tolerance_s = params.sample_rate_hz, DURATION_TOLERANCE_S
    shortest, longest = params.min_duration_s, params.max_duration_s
    silent, clipped = params.max_silent_share, params.max_clipped_share
    return [
        _state("path_outside", "outside", "the audio file lies below the manifest's folder"),
        _state("missing_file", "missing", "the audio file exists"),
        _state("empty_file", "empty", "the audio file holds samples"),
        _state("unreadable_file", "unreadable", "the audio file can be decoded"),
        _state("truncated_file", "truncated", "the audio file holds every sample that its header promises"),
        _state(
            "joined_files", "joined", "recordings one behind the other in a file have one rate and channels"
        ),
        _one_of("wrong_sha256", "sha256_matches", (True,), "the file's SHA-256 is the manifest's"),
        _one_of("wrong_sample_rate", "measured_rate_hz", (float(rate),), f"the file is sampled at {rate} Hz"),
        _one_of("sample_rate_differs", "rate_matches", (True,), "the manifest's sample rate is the file's"),
        _one_of("not_mono", "channels", (1.0,), "the file has one channel"),
        _between(
            "duration_out_of_range",
            "measured_duration_s",
            (shortest, longest),
            f"the file lasts {shortest:g} to {longest:g} s",
        ),
        _between(
            "duration_differs",
            "duration_error_s",
            (-tolerance_s, tolerance_s),
            f"the manifest's duration is the file's, within {tolerance_s:g} s",
        ),
        _between("silent", "silent_share", (None, silent), f"at most {silent:.0%} of the file is silent"),
        _between(
            "clipped",
            "clipped_share",
            (None, clipped),
            f"at most {clipped:.1%} of the samples are at full scale",
        ),
    ]


def _text_rules(params: Validate) -> list[RowRule]:
    slowest, fastest = params.min_characters_per_s, params.max_characters_per_s
    length = {"min_value": 1, "max_value": None}
    return [
        *(_alone(reason, reason, says) for reason, says in SET_ASIDE_FOR.items()),
        _one_of("not_nfc", "transcript_is_nfc", (True,), "the transcript is composed Unicode (NFC)"),
        RowRule(
            "empty_transcript",
            "text",
            "ExpectColumnValueLengthsToBeBetween",
            length,
            "something is left of the transcript after normalisation",
        ),
        RowRule(
            "not_hangul",
            "text",
            "ExpectColumnValuesToMatchRegex",
            {"regex": r"^[가-힣 ]*$"},
            "the normalised transcript is Hangul syllables and spaces",
        ),
        _between(
            "speech_rate_out_of_range",
            "characters_per_s",
            (slowest, fastest),
            f"{slowest:g} to {fastest:g} characters are spoken per second",
        ),
        _alone(
            "too_many_labels",
            "too_many_labels",
            "the recogniser gives a frame for every label of the transcript and one between equal ones",
        ),
    ]


def _rules_between_rows() -> list[RowRule]:
    return [
        _alone(
            "duplicate_audio",
            "same_audio_as",
            "a recording occurs once; a copy in a test split is the one kept",
        ),
        _alone(
            "copied_recording",
            "same_recording_as",
            "a recording occurs once, whatever its format, level, noise or silence; "
            "a copy in a test split is the one kept",
        ),
        _alone(
            "repeated_sentence",
            "repeats",
            "a speaker says a sentence once per split; the first recording is kept",
        ),
        _alone(
            "leaked_sentence",
            "leaks_sentence_of",
            "no sentence of a test split is in validation or train, none of validation in train; "
            "the row learnt from goes, the one that tests stays",
        ),
        _alone(
            "leaked_speaker",
            "leaks_speaker_of",
            f"no speaker of {UNSEEN_VOICES} is in validation or train; the row learnt from goes",
        ),
    ]


def _between(reason: str, column: str, bounds: tuple[float | None, float | None], says: str) -> RowRule:
    arguments = {"min_value": bounds[0], "max_value": bounds[1]}
    return RowRule(reason, column, "ExpectColumnValuesToBeBetween", arguments, says)


def _one_of(reason: str, column: str, values: tuple[Any, ...], says: str) -> RowRule:
    return RowRule(reason, column, "ExpectColumnValuesToBeInSet", {"value_set": list(values)}, says)


def _state(reason: str, state: str, says: str) -> RowRule:
    return RowRule(reason, "file_state", "ExpectColumnValuesToNotBeInSet", {"value_set": [state]}, says)


def _alone(reason: str, column: str, says: str) -> RowRule:
    """For a column that names the other row (or the empty fields) where the rule is broken."""
    return RowRule(reason, column, "ExpectColumnValuesToBeNull", {}, says)
