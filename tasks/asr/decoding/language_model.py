"""An n-gram model of the training transcripts, as an ARPA file: what people say.

The acoustic model writes what it hears, jamo by jamo; the n-gram model knows which sequences are said, of
symbols or of words. It ships with the recogniser (`ngrams.py` says what it is estimated from).
Interpolated Witten-Bell smoothing (Witten and Bell 1991), written in back-off form, so that KenLM reads it.
Not here: the searches that listen to it (`decode.py`, `word_search.py`).
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from tasks.artifacts import new_file
from tasks.asr.checkpoints.vocabulary import SPECIAL
from tasks.errors import ModelError

FILE_NAME = "language_model.arpa.gz"
ORDER = 6  # symbols, about two and a half syllables; the most that the decoder's KenLM is built for
BEGIN, END, OTHER = "<s>", "</s>", "<unk>"
_NEVER = -99.0  # ARPA's way to say that <s> is not predicted

Gram = tuple[str, ...]


def estimate(transcripts: Iterable[Sequence[str]], symbols: Sequence[str], order: int = ORDER) -> str:
    """ARPA text of the model of the transcripts, each a sequence of symbols.

    Args:
        symbols: all that can be said; those never seen, and the end, share what smoothing leaves over.
        order: the longest n-gram counted.
    """
    counts: dict[Gram, dict[str, int]] = {}  # context → what followed it, how often
    for transcript in transcripts:
        sequence = (BEGIN, *transcript, END)
        for end in range(1, len(sequence)):
            for start in range(max(0, end - order + 1), end + 1):
                after = counts.setdefault(sequence[start:end], {})
                after[sequence[end]] = after.get(sequence[end], 0) + 1
    said = [symbol for symbol in symbols if symbol not in SPECIAL and symbol.strip()]
    return _arpa(_probabilities(counts, [*said, END]), counts, order)


def _probabilities(counts: dict[Gram, dict[str, int]], words: Sequence[str]) -> dict[Gram, float]:
    """Interpolated probability of every n-gram seen, and of every word alone."""
    uniform = 1.0 / (len(words) + 1)  # one more for the unknown
    alone = counts.get((), {})
    total, kinds = sum(alone.values()), len(alone)
    found: dict[Gram, float] = {
        (word,): (alone.get(word, 0) + kinds * uniform) / max(1, total + kinds) for word in words
    }
    found[OTHER,] = kinds * uniform / max(1, total + kinds)
    for context in sorted(counts, key=len):
        if not context:
            continue
        after = counts[context]
        total, kinds = sum(after.values()), len(after)
        for word, count in after.items():
            shorter = found[(*context[1:], word)]
            found[(*context, word)] = (count + kinds * shorter) / (total + kinds)
    return found


def _arpa(probabilities: dict[Gram, float], counts: dict[Gram, dict[str, int]], order: int) -> str:
    def backoff(gram: Gram) -> str:
        if gram not in counts or len(gram) == order:
            return ""
        total, kinds = sum(counts[gram].values()), len(counts[gram])
        return f"\t{math.log10(kinds / (total + kinds)):.6f}"

    by_order: list[list[str]] = [[] for _ in range(order)]
    by_order[0].append(f"{_NEVER}\t{BEGIN}{backoff((BEGIN,))}")
    for gram, probability in sorted(probabilities.items()):
        by_order[len(gram) - 1].append(f"{math.log10(probability):.6f}\t{' '.join(gram)}{backoff(gram)}")
    lines = ["\\data\\", *(f"ngram {n}={len(grams)}" for n, grams in enumerate(by_order, 1)), ""]
    for n, grams in enumerate(by_order, 1):
        lines += [f"\\{n}-grams:", *grams, ""]
    return "\n".join([*lines, "\\end\\", ""])


def pack(arpa: str) -> bytes:
    """Gzipped ARPA text; the same text gives the same bytes."""
    return gzip.compress(arpa.encode(), mtime=0)


def unpack(content: bytes, where: str) -> str:
    """The inverse of `pack`. Raises `ModelError`, naming `where`, when the content is broken."""
    try:
        arpa = gzip.decompress(content).decode()
        if not (arpa.startswith("\\data\\") and arpa.endswith("\\end\\\n")):
            raise ValueError("it is not a whole ARPA text")
        return arpa
    except (OSError, EOFError, ValueError) as error:
        raise ModelError(
            f"{where} cannot be read ({error})",
            "must be the n-gram model that language_model_asr wrote",
            "make it again: `dvc repro -f language_model_asr`",
        ) from error


def save(arpa: str, folder: Path) -> None:
    """Writes the model's file into `folder`."""
    with new_file(folder / FILE_NAME) as temporary:
        temporary.write_bytes(pack(arpa))


def read(folder: Path) -> str | None:
    """The ARPA text in `folder`, None when it has none. Raises `ModelError` when the file is broken."""
    path = folder / FILE_NAME
    return unpack(path.read_bytes(), str(path)) if path.is_file() else None
