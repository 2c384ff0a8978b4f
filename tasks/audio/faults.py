"""What can be wrong with a file that should be audio: one wording for every part of Malgil. No command."""

from __future__ import annotations

from tasks.errors import DataError

AGAIN = "record, copy or convert it again (`ffmpeg -i FILE OTHER.wav`)"
READ = "WAV, FLAC, Ogg (Vorbis, Opus, FLAC), MP3, AIFF, AU, CAF, W64, RF64 and NIST are read"


class AudioError(DataError):
    """A file that cannot be used, and `state`, its fault in one word.

    `state` is missing, empty, unreadable, truncated or joined (files one behind the other that do not fit);
    `detail` says it without the name of the file.
    """

    def __init__(self, state: str, name: str, detail: str, rule: str, next_step: str) -> None:
        self.state, self.detail = state, detail
        super().__init__(f"{name} {detail}", rule, next_step)

    def __reduce__(self) -> tuple[object, ...]:
        name = self.what.removesuffix(f" {self.detail}")
        return AudioError, (self.state, name, self.detail, self.rule, self.next_step)


def missing(name: str) -> AudioError:
    """There is no such file."""
    return AudioError("missing", name, "is missing", "must be a file", "restore it, or correct the path")


def empty(name: str) -> AudioError:
    """A file without bytes."""
    return AudioError(
        "empty",
        name,
        "is empty (0 bytes)",
        "an audio file must hold samples",
        "copy it again from its origin",
    )


def no_samples(name: str) -> AudioError:
    """A good header and nothing behind it."""
    return AudioError(
        "empty", name, "has zero length", "an audio file must hold samples", "record or copy it again"
    )


def truncated(name: str, how: str) -> AudioError:
    """Less than the file says that it holds."""
    return AudioError(
        "truncated",
        name,
        f"is truncated: {how}",
        "an audio file must be whole",
        "copy it again from its origin; what is left of it can be kept with `ffmpeg -i FILE OTHER.wav`",
    )


def unreadable(name: str, why: str, rule: str = READ, next_step: str = AGAIN) -> AudioError:
    """Not audio, not of a format that is read, or damaged."""
    return AudioError("unreadable", name, f"cannot be decoded ({why})", rule, next_step)


def not_numbers(name: str) -> AudioError:
    """Floating-point samples that are NaN or infinite."""
    return AudioError("unreadable", name, "holds NaN or infinite samples", "samples must be numbers", AGAIN)


def joined(name: str, why: str, at: int) -> AudioError:
    """Files one behind the other that cannot be read as one."""
    return AudioError(
        "joined",
        name,
        f"holds recordings one behind the other {why}",
        "a file holds one recording, or several of one rate and number of channels",
        f"cut it apart: `head -c {at} FILE > FIRST` and `tail -c +{at + 1} FILE > REST`",
    )
