"""The espeak-ng engine of the `espeakng-loader` wheel, through ctypes: text to float32 audio at 16 kHz,
text to IPA.

It renders *synthetic* speech and imitates nobody. It does not choose sentences or voices (see
`tasks.data.voices`) and writes no files. Rendering is not bit-identical between processes: keep the
audio, never compare re-rendered hashes.

    with Synthesiser() as synthesiser:
        audio = synthesiser.speak("거실 불 좀 켜 줘", voice="ko+f1", rate_wpm=175, pitch=50)   # (samples,)
"""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import espeakng_loader
import numpy as np
import soxr

from tasks.errors import DataError, MissingDependencyError

SAMPLE_RATE_HZ = 16_000
RATE_WPM = (80, 450)  # what espeak-ng renders without switching to its speed-up filter
PITCH = (0, 99)  # espeak-ng's own scale; 50 is the voice's natural pitch

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: espeak_Synth returns when the callback has had everything
_DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: return an error instead of ending the process
_UTF8 = 1
_POS_CHARACTER = 1
_PARAMETER_RATE, _PARAMETER_PITCH = 1, 3
_IPA = 0x02
_SEPARATOR = "_"
# espeak-ng copies the data path into a fixed buffer; longer ones end the process (measured: about 155
# characters).
_LONGEST_SAFE_PATH = 120

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_engine_in_use = False


class Synthesiser:
    """The one espeak-ng engine of this process, as a context manager.

    Raises `DataError` when a second one is opened while the first is open: the C library keeps global state.
    """

    def __init__(self) -> None:
        self._library: Any = None
        self._chunks: list[np.ndarray[Any, np.dtype[np.int16]]] = []
        self._callback = _Callback(
            self._collect
        )  # referenced here, or ctypes frees it while C still calls it
        self._link_folder: Path | None = None
        self._voice = ""
        self._engine_rate_hz = 0

    def __enter__(self) -> Self:
        global _engine_in_use
        if _engine_in_use:
            raise DataError(
                "a second Synthesiser", "espeak-ng keeps one engine per process", "reuse the open one"
            )
        data = _data_folder()
        if len(str(data)) > _LONGEST_SAFE_PATH:
            self._link_folder = Path(tempfile.mkdtemp(prefix="malgil-"))
            (self._link_folder / "espeak-ng-data").symlink_to(data)
            data = self._link_folder / "espeak-ng-data"
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._engine_rate_hz = self._library.espeak_Initialize(
            _SYNCHRONOUS, 0, str(data).encode(), _DONT_EXIT
        )
        if self._engine_rate_hz <= 0:
            self._remove_link()
            raise MissingDependencyError(
                f"espeak-ng did not start on {data}", "its data must be readable", "reinstall espeakng-loader"
            )
        self._library.espeak_SetSynthCallback(self._callback)
        _engine_in_use = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _engine_in_use
        self._library.espeak_Terminate()
        self._library = None
        self._remove_link()
        self._voice = ""
        _engine_in_use = False

    def speak(
        self, text: str, voice: str, rate_wpm: int = 175, pitch: int = 50
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Render `text`; returns float32 mono at 16 kHz, shape (samples,), in [-1, 1], the engine's own
        silence trimmed off.

        `voice` is `language` or `language+variant` ("ko+f1"). Raises `DataError` for an unknown voice, an
        empty text, or a rate (words per minute) or pitch (0 to 99) out of range.
        """
        self._choose(voice)
        for value, (low, high), name in ((rate_wpm, RATE_WPM, "rate_wpm"), (pitch, PITCH, "pitch")):
            if not low <= value <= high:
                raise DataError(f"{name}={value}", f"must be {low} to {high}", "correct the caller's setting")
        # Set after the voice: choosing a voice resets both.
        self._library.espeak_SetParameter(_PARAMETER_RATE, rate_wpm, 0)
        self._library.espeak_SetParameter(_PARAMETER_PITCH, pitch, 0)
        self._chunks = []
        encoded = text.encode() + b"\0"
        self._library.espeak_Synth(encoded, len(encoded), 0, _POS_CHARACTER, 0, _UTF8, None, None)
        if not self._chunks:
            raise DataError(
                f"no speech for {text!r}", "the text needs something to say", "remove it from the corpus"
            )
        audio = np.concatenate(self._chunks).astype(np.float32) / 32768.0
        audio = trim_silence(
            soxr.resample(audio, self._engine_rate_hz, SAMPLE_RATE_HZ, quality="HQ").astype(np.float32)
        )
        if not len(audio):
            raise DataError(
                f"only silence for {text!r} by {voice}", "the text needs something to say", "remove it"
            )
        return np.clip(audio, -1.0, 1.0)

    def phonemes(self, text: str, voice: str) -> list[list[str]]:
        """IPA symbols of `text`, one list per word; stress and length marks are dropped from the symbols.

        Raises `DataError` for an unknown voice.
        """
        self._choose(voice)
        pointer = ctypes.c_char_p(text.encode())
        words: list[list[str]] = []
        while pointer.value:
            clause = self._library.espeak_TextToPhonemes(
                ctypes.byref(pointer), _UTF8, _IPA | ord(_SEPARATOR) << 8
            )
            for word in (clause or b"").decode().split():
                symbols = [_plain(symbol) for symbol in word.split(_SEPARATOR)]
                if any(symbols):
                    words.append([symbol for symbol in symbols if symbol])
        return words

    def _choose(self, voice: str) -> None:
        if self._library is None:
            raise DataError(
                "the Synthesiser is closed", "it is a context manager", "use `with Synthesiser() as s:`"
            )
        if voice == self._voice:
            return
        language, _, variant = voice.partition("+")
        # espeak-ng accepts an unknown variant silently and speaks with the default voice.
        if variant and variant not in variants():
            raise DataError(
                f"voice {voice!r}",
                f"espeak-ng has no variant {variant!r}",
                "choose one of tasks/data/voices.py",
            )
        if not language or self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise DataError(
                f"voice {voice!r}", f"espeak-ng has no language {language!r}", "correct the voice"
            )
        self._voice = voice

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    def _remove_link(self) -> None:
        if self._link_folder is not None:
            shutil.rmtree(self._link_folder, ignore_errors=True)
            self._link_folder = None


def variants() -> frozenset[str]:
    """Names of the voice variants that the wheel carries (the part after `+`)."""
    return frozenset(path.name for path in (_data_folder() / "voices" / "!v").iterdir())


def trim_silence(
    audio: np.ndarray[Any, np.dtype[np.float32]], threshold: float = 1e-3, margin_s: float = 0.02
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Cut leading and trailing samples below `threshold` (full scale 1), keeping `margin_s`; empty if
    nothing is louder.
    """
    loud = np.flatnonzero(np.abs(audio) > threshold)
    if not len(loud):
        return audio[:0]
    margin = int(margin_s * SAMPLE_RATE_HZ)
    return audio[max(0, int(loud[0]) - margin) : int(loud[-1]) + 1 + margin]


def _data_folder() -> Path:
    folder = Path(espeakng_loader.get_data_path())
    if not (folder / "voices" / "!v").is_dir():
        raise MissingDependencyError(
            f"{folder} has no voices", "espeakng-loader brings espeak-ng's data", "reinstall espeakng-loader"
        )
    return folder


def _plain(symbol: str) -> str:
    """An IPA symbol without what the ear hardly tells apart: stress, length, tone digits, ties and
    language switches.
    """
    if symbol.startswith("("):
        return ""
    return "".join(c for c in symbol if c not in "ˈˌːˑ-|͡‍.̩̯" and not c.isdigit() and not c.isspace())
