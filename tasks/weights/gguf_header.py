"""The header of a GGUF: metadata, and name, shape, type and place of every tensor; bounded, and checked.

llama.cpp ends the whole process on some files that are not what they claim, and gguf's own reader trusts
every count. So this reads first: no length, count or offset leads beyond the file, every tensor lies inside
of it, and for the families that Malgil converts the tensors are those that the metadata describe. Values are
not read. No command.

Format: https://github.com/ggml-org/ggml (its page on GGUF), versions 2 and 3, little endian.
"""

import mmap
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from tasks.errors import ModelError
from tasks.weights.stored import require_content
from tasks.weights.whole import require_whole, size

AGAIN = "fetch or copy it again; one of ours is made again by `malgil run`"
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_MOST = {"metadata": 10_000, "tensors": 100_000, "name": 63, "key": 65_535, "dimensions": 4}
_LARGEST = 1 << 31  # of a dimension or a count in the metadata: beyond it llama.cpp computes in 32 bits


class Tensor(NamedTuple):
    """One tensor: its dimensions as the file has them (columns first), its type, and its bytes in the
    file."""

    shape: tuple[int, ...]
    kind: str
    start: int
    bytes: int


class Header(NamedTuple):
    """What a GGUF says before its data."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name, columns first."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}


def read_header(path: Path) -> Header:
    """The header of a GGUF, its bounds checked against the file.

    Raises:
        ModelError: it is missing, no GGUF, cut off, or says what cannot be.
    """
    require_content(path)
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _Reader(path, data).header()
        except (ValueError, struct.error) as error:
            raise _broken(path, str(error)) from error


def check_gguf(path: Path) -> Header:
    """The header, its numbers possible and its tensors those that they describe.

    Raises:
        ModelError: see `read_header`; or tensors are missing, unexpected or of another shape.
    """
    header = read_header(path)
    try:
        _check_vocabulary(header)
        architecture = header.metadata.get("general.architecture")
        if architecture in FAMILIES:
            expected, optional = _tensors_of(header, architecture)
            require_whole(
                expected, header.shapes(), where=path, next_step=AGAIN, optional=lambda name: name in optional
            )
            vectors = [
                n
                for n, t in header.tensors.items()
                if len(t.shape) == 1 and t.kind not in ("F32", "F16", "BF16")
            ]
            if vectors:
                raise ValueError(
                    f"{vectors[0]} is {header.tensors[vectors[0]].kind}: a vector is not quantised"
                )
    except ValueError as error:
        raise _broken(path, str(error)) from error
    return header


class _Reader:
    """Reads forwards through a file, never beyond its end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.place, self.end = path, data, 0, len(data)

    def header(self) -> Header:
        if self._take(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version = self._number("I")
        if version not in (2, 3):
            raise ValueError(f"version {version}; 2 and 3 are read")
        tensors, fields = self._count("tensors", 24), self._count("metadata", 13)
        metadata: dict[str, Any] = {}
        for _ in range(fields):
            key = self._text("key")
            if key in metadata:
                raise ValueError(f"{key!r} stands twice")
            metadata[key] = self._value(self._number("I"), key)
        infos = dict(self._tensor_infos(tensors))
        if len(infos) != tensors:
            raise ValueError("a tensor stands twice")
        alignment = metadata.get("general.alignment", 32)
        if (
            isinstance(alignment, bool)
            or not isinstance(alignment, int)
            or not 1 <= alignment <= 1 << 20
            or alignment & (alignment - 1)
        ):
            raise ValueError(f"general.alignment is {alignment!r}")
        return Header(self.path, metadata, self._placed(infos, alignment))

    def _tensor_infos(self, count: int) -> "list[tuple[str, tuple[tuple[int, ...], int, int]]]":
        found = []
        for _ in range(count):
            name = self._text("name")
            dimensions = self._number("I")
            if not 1 <= dimensions <= _MOST["dimensions"]:
                raise ValueError(f"{name!r} has {dimensions} dimensions")
            shape = tuple(self._number("Q") for _ in range(dimensions))
            if not all(0 < dimension < _LARGEST for dimension in shape):
                raise ValueError(f"{name!r} is {size(shape)}")
            found.append((name, (shape, self._number("I"), self._number("Q"))))
        return found

    def _placed(
        self, infos: Mapping[str, tuple[tuple[int, ...], int, int]], alignment: int
    ) -> dict[str, Tensor]:
        """Tensors with their bytes: one behind the other, aligned, all inside of the file."""
        start = -(-self.place // alignment) * alignment
        expected, tensors = 0, {}
        for name, (shape, number, offset) in infos.items():
            try:
                kind = GGMLQuantizationType(number)
                block, width = GGML_QUANT_SIZES[kind]
            except (ValueError, KeyError):
                raise ValueError(f"{name!r} is of the unknown type {number}") from None
            if shape[0] % block:
                raise ValueError(f"{name!r} has rows of {shape[0]}, and {kind.name} blocks of {block}")
            used = prod(shape) // block * width
            if offset != expected:
                raise ValueError(f"{name!r} begins at {offset} of the data, and should at {expected}")
            if start + offset + used > self.end:
                raise ValueError(
                    f"{name!r} ends at byte {start + offset + used} of {self.end}: the file is cut off"
                )
            tensors[name] = Tensor(shape, kind.name, start + offset, used)
            expected = -(-(offset + used) // alignment) * alignment
        return tensors

    def _value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array(key)
        if kind == _BOOL:
            return self._bool(key)
        if kind not in _SCALARS:
            raise ValueError(f"{key!r} is of the unknown type {kind}")
        return self._number(_SCALARS[kind])

    def _array(self, key: str) -> list[Any]:
        kind, count = self._number("I"), self._number("Q")
        if kind == _STRING:
            if count * 8 > self.end - self.place:
                raise ValueError(f"{key!r} claims {count} texts")
            return self._texts(count)
        if kind not in _SCALARS:
            raise ValueError(f"{key!r} is an array of the unknown type {kind}")
        width = struct.calcsize(_SCALARS[kind])
        if count * width > self.end - self.place:
            raise ValueError(f"{key!r} claims {count} numbers")
        return list(struct.unpack(f"<{count}{_SCALARS[kind]}", self._take(count * width)))

    def _texts(self, count: int) -> list[str]:
        """Many short texts: the tokens of a vocabulary, in a loop that calls nothing of ours."""
        data, place, end, length_at = self.data, self.place, self.end, struct.Struct("<Q").unpack_from
        found = []
        for _ in range(count):
            if place + 8 > end:
                raise ValueError("the file ends within its header")
            (length,) = length_at(data, place)
            place += 8
            if length > end - place:
                raise ValueError("the file ends within its header")
            found.append(data[place : place + length].decode("utf-8"))
            place += length
        self.place = place
        return found

    def _bool(self, key: str) -> bool:
        value = self._number("B")
        if value > 1:
            raise ValueError(f"{key!r} is neither true nor false")
        return bool(value)

    def _count(self, what: str, least_bytes: int) -> int:
        count = int(self._number("Q"))
        if count > _MOST[what] or count * least_bytes > self.end:
            raise ValueError(f"it claims {count} {what}")
        return count

    def _text(self, what: str | None = None) -> str:
        length = self._number("Q")
        if what and not 0 < length <= _MOST[what]:
            raise ValueError(f"a {what} of {length} bytes")
        text = self._take(length).decode("utf-8")
        if what and "\0" in text:
            raise ValueError(f"a {what} with a zero byte")
        return text

    def _number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))[0]

    def _take(self, count: int) -> bytes:
        if count > self.end - self.place:
            raise ValueError("the file ends within its header")
        self.place += count
        return self.data[self.place - count : self.place]


class Family(NamedTuple):
    """What the tensors of a family's blocks are beside those of llama."""

    biases: bool | None  # of q, k and v: always, never, or None: all or none
    norms: bool  # of the heads of q and k


FAMILIES = {"llama": Family(None, False), "qwen2": Family(True, False), "qwen3": Family(None, True)}


def _tensors_of(header: Header, architecture: str) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """Shapes by name that the metadata describe, and the names that may be missing."""
    family, known = FAMILIES[architecture], header.metadata

    def number(key: str, default: int | None = None, most: int = 1 << 24) -> int:
        value = known.get(f"{architecture}.{key}", default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
            raise ValueError(f"{architecture}.{key} is {value!r}")
        return value

    width, wide, blocks = (
        number("embedding_length"),
        number("feed_forward_length"),
        number("block_count", most=4096),
    )
    number("context_length", most=_LARGEST)
    heads = number("attention.head_count", most=65_536)
    groups = number("attention.head_count_kv", heads, most=65_536)
    head = number("attention.key_length", width // heads)
    value_head = number("attention.value_length", width // heads)
    rotated = number("rope.dimension_count", head)
    if (
        heads % groups
        or rotated > head
        or rotated % 2
        or (f"{architecture}.attention.key_length" not in known and width % heads)
    ):
        raise ValueError(f"{heads} heads of {head}, {groups} of keys, {rotated} rotated do not go together")
    for key in ("attention.layer_norm_rms_epsilon", "rope.freq_base"):
        value = known.get(f"{architecture}.{key}", 1e-5)
        if not isinstance(value, float) or not 0 < value < 1e12:
            raise ValueError(f"{architecture}.{key} is {value!r}")
    words = len(known["tokenizer.ggml.tokens"])
    expected: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (width, words),
        "output_norm.weight": (width,),
        "output.weight": (width, words),
    }
    optional = {"output.weight"}
    if architecture == "llama" and "rope_freqs.weight" in header.tensors:
        expected["rope_freqs.weight"] = (rotated // 2,)
    q, k, v = heads * head, groups * head, groups * value_head
    biased = family.biases or (family.biases is None and "blk.0.attn_q.bias" in header.tensors)
    for block in range(blocks):
        parts: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (width,), "attn_q.weight": (width, q), "attn_k.weight": (width, k),
            "attn_v.weight": (width, v), "attn_output.weight": (heads * value_head, width), "ffn_norm.weight":
            (width,), "ffn_gate.weight": (width, wide), "ffn_up.weight": (width, wide), "ffn_down.weight":
        (wide, width), }  # fmt: skip
        if biased:
            parts |= {"attn_q.bias": (q,), "attn_k.bias": (k,), "attn_v.bias": (v,)}
        if biased and "blk.0.attn_output.bias" in header.tensors:
            parts["attn_output.bias"] = (width,)
        if architecture == "llama" and "blk.0.ffn_gate.bias" in header.tensors:  # mlp_bias
            parts |= {"ffn_gate.bias": (wide,), "ffn_up.bias": (wide,), "ffn_down.bias": (width,)}
        if family.norms:
            parts |= {"attn_q_norm.weight": (head,), "attn_k_norm.weight": (head,)}
        expected |= {f"blk.{block}.{name}": shape for name, shape in parts.items()}
    return expected, optional


def _check_vocabulary(header: Header) -> None:
    """Token lists of one length, and ids inside of it."""
    known = header.metadata
    if not isinstance(known.get("general.architecture"), str):
        raise ValueError("it has no general.architecture")
    words = known.get("tokenizer.ggml.tokens")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise ValueError("it has no tokenizer.ggml.tokens")
    if any("\0" in word for word in words):  # llama.cpp reads it as the end of the token
        raise ValueError("one of its tokens holds a zero byte")
    if len(set(words)) < len(words):
        raise ValueError(f"{len(words) - len(set(words))} of its {len(words)} tokens stand twice")
    for key in ("tokenizer.ggml.token_type", "tokenizer.ggml.scores"):
        if key in known and (not isinstance(known[key], list) or len(known[key]) != len(words)):
            raise ValueError(f"{key} is not one for each of {len(words)} tokens")
    for key, value in known.items():
        if (
            key.startswith("tokenizer.ggml.")
            and key.endswith("_token_id")
            and not (isinstance(value, int) and 0 <= value < len(words))
        ):
            raise ValueError(f"{key} is {value!r}, of {len(words)} tokens")


def _broken(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path} cannot be loaded: {why}", "a whole GGUF of a known architecture is needed", AGAIN
    )
