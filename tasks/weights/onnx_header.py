"""What an ONNX file is made of, read without ONNX Runtime: inputs, outputs, weights, metadata; bounded.

The messages of the Protobuf are walked, and data passed over: a file of a gigabyte takes as long as one of a
megabyte. Every tensor must have the bytes that its shape asks for, inside of this very file (a tensor may
name another file, and a hostile one names any), and every node's inputs must come from somewhere. No command.

Format: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

import mmap
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.errors import ModelError
from tasks.weights.stored import require_content
from tasks.weights.whole import listed, size

AGAIN = "`malgil run` makes it again; a published one is fetched again"
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16}
_MOST_DEPTH = 8  # of graphs in attributes of nodes
Field = tuple[int, "int | memoryview"]


class Onnx(NamedTuple):
    """What a file says: names of the graph's inputs and outputs, shapes of its weights, its metadata."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: dict[str, tuple[int, ...]]
    metadata: dict[str, str]


def check_onnx(path: Path, inputs: Sequence[str], outputs: Sequence[str], metadata: Sequence[str]) -> Onnx:
    """Reads a file and compares it with what its user needs.

    Args:
        inputs: names of the graph's inputs, all of them.
        outputs: names of its outputs, all of them.
        metadata: keys that its metadata must have.

    Raises:
        ModelError: it is missing, cut off or no ONNX file; a weight is missing, kept in another file or of
            another size than its shape; inputs, outputs or metadata are others.
    """
    found = read_onnx(path)
    for what, has, wanted in (("inputs", found.inputs, inputs), ("outputs", found.outputs, outputs)):
        if sorted(has) != sorted(wanted):
            raise _broken(path, f"its {what} are {', '.join(has) or 'none'} instead of {', '.join(wanted)}")
    if missing := [key for key in metadata if key not in found.metadata]:
        raise _broken(
            path, listed(missing, "entry of its metadata is missing", "entries of its metadata are missing")
        )
    return found


def read_onnx(path: Path) -> Onnx:
    """What a file says.

    Raises:
        ModelError: it is missing, cut off or no ONNX file; or a weight is missing, kept in another file or of
            another size than its shape.
    """
    require_content(path)
    with path.open("rb") as stream:
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)  # closed with the last view of it
    try:
        return _model(memoryview(data))
    except (ValueError, RecursionError) as error:
        raise _broken(path, str(error)) from error


def _model(data: memoryview) -> Onnx:
    graph: _Graph | None = None
    metadata: dict[str, str] = {}
    for number, value in _fields(data):
        if number == 7:
            if graph is not None:
                raise ValueError("it holds two graphs")
            graph = _Graph(_message(value), 0)
        elif number == 14:
            entry = dict(_fields(_message(value)))
            metadata[_text(entry.get(1, b""))] = _text(entry.get(2, b""))
        elif number == 20:
            raise ValueError("it holds a training")
    if graph is None:
        raise ValueError("it holds no graph")
    graph.check()
    inputs = tuple(name for name in graph.inputs if name not in graph.weights)
    return Onnx(inputs, tuple(graph.outputs), graph.weights, metadata)


class _Graph:
    """Names and weights of one graph."""

    def __init__(self, data: memoryview, depth: int) -> None:
        if depth > _MOST_DEPTH:
            raise ValueError("its graphs are nested too deeply")
        self.depth = depth
        self.weights: dict[str, tuple[int, ...]] = {}
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.made: list[str] = []
        self.used: dict[str, str] = {}  # by which node
        for number, value in _fields(data):
            if number == 1:
                self._node(_message(value))
            elif number == 5:
                name, shape = _tensor(_message(value))
                if name in self.weights:
                    raise ValueError(f"weight {name!r} stands twice")
                self.weights[name] = shape
            elif number in (11, 12):
                names = self.inputs if number == 11 else self.outputs
                names.append(_text(dict(_fields(_message(value))).get(1, b"")))
            elif number == 15:
                raise ValueError("it holds sparse weights")

    def _node(self, data: memoryview) -> None:
        inputs, kind = [], ""
        for number, value in _fields(data):
            if number == 1:
                inputs.append(_text(value))
            elif number == 2:
                self.made.append(_text(value))
            elif number == 4:
                kind = _text(value)
            elif number == 5:
                self._attribute(_message(value))
        for name in inputs:
            if name:
                self.used.setdefault(name, kind)

    def _attribute(self, data: memoryview) -> None:
        for number, value in _fields(data):
            if number in (5, 10):
                _tensor(_message(value))
            elif number in (6, 11):  # of a loop or a branch; what it takes from outside is not followed
                inner = _Graph(_message(value), self.depth + 1)
                self.made += inner.made

    def check(self) -> None:
        """Every input of a node comes from a weight, an input of the graph or another node."""
        known = {*self.weights, *self.inputs, *self.made}
        if absent := [f"{name} of {kind}" for name, kind in self.used.items() if name not in known]:
            raise ValueError(listed(absent, "weight is missing", "weights are missing"))
        if absent := [name for name in self.outputs if name not in known]:
            raise ValueError(listed(absent, "output is made by no node", "outputs are made by no node"))


def _tensor(data: memoryview) -> tuple[str, tuple[int, ...]]:
    """Name and shape of a tensor that has as many values as it says, in this file."""
    shape: list[int] = []
    name, kind, raw, counts, texts = "", 0, None, 0, 0
    for number, value in _fields(data):
        if number == 1:
            shape += [value] if isinstance(value, int) else _varints(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = len(_message(value))
        elif number in (4, 5, 7, 10, 11):
            counts += 1 if isinstance(value, int) else _count(number, value)
        elif number == 6:
            texts += 1
        elif number == 13 or (number == 14 and value):
            raise ValueError(f"weight {name or '(unnamed)'!r} is kept in another file")
    if not all(0 <= dimension < 1 << 40 for dimension in shape):
        raise ValueError(f"weight {name!r} is {size(shape)}")
    needed = prod(shape)
    if kind == 8:
        fits = texts == needed
    elif kind not in _BITS:
        raise ValueError(f"weight {name!r} is of the unknown type {kind}")
    else:
        fits = raw * 8 == needed * _BITS[kind] if raw is not None else counts == needed
    if not fits:
        raise ValueError(f"weight {name!r} of {size(shape)} has other bytes than that takes")
    return name, tuple(shape)


def _count(number: int, packed: memoryview) -> int:
    width = {4: 4, 10: 8}.get(number)
    if width:
        return len(packed) // width
    return int(np.count_nonzero(np.frombuffer(packed, np.uint8) < 0x80))  # the last byte of each number


def _fields(data: memoryview) -> Iterator[Field]:
    """Numbers and values of a message's fields: integers, or the bytes of texts and messages."""
    place, end = 0, len(data)
    while place < end:
        key = data[place]
        if key < 0x80:  # nearly always, and for lengths too: a number of one byte
            place += 1
        else:
            key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        if kind == 2:
            if place < end and data[place] < 0x80:
                length, place = data[place], place + 1
            else:
                length, place = _varint(data, place)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"no Protobuf: a field of kind {kind}")
        if number == 0 or length > end - place:
            raise ValueError("it is cut off, or no Protobuf")
        part = data[place : place + length]
        place += length
        yield number, part if kind == 2 else int.from_bytes(part, "little")


def _varints(data: memoryview) -> Iterator[int]:
    place = 0
    while place < len(data):
        value, place = _varint(data, place)
        yield value


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError("it is cut off within a number")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("no Protobuf: a number without end")


def _message(value: "int | memoryview") -> memoryview:
    if isinstance(value, int):
        raise ValueError("no ONNX: a number where a message is due")
    return value


def _text(value: "int | memoryview | bytes") -> str:
    if isinstance(value, int):
        raise ValueError("no ONNX: a number where a text is due")
    return bytes(value).decode("utf-8")


def _broken(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path} cannot be opened: {why}", "must be a whole ONNX file with all of its weights in it", AGAIN
    )
