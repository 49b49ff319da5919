"""The pickles of the CIFAR python archives, read without trusting them.

They are Python 2 pickles of a dict that holds strings, lists of integers and one array; Python 3 writes the same by
other protocols, with keys that are text. Nothing of what a pickle may name is ever imported or called: the names that
arrays of integers need are answered by harmless stand-ins.
"""

from __future__ import annotations

import codecs
import io
import math
import pickle
import pickletools
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from ....core.errors import UserError

_OPCODES = """
    PROTO FRAME STOP MARK EMPTY_DICT EMPTY_LIST EMPTY_TUPLE DICT LIST TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS
    SETITEM SETITEMS NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 STRING BINSTRING SHORT_BINSTRING
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD
""".split()  # noqa: SIM905 - quoted words would fill a screen


class _Array:
    """Stands for numpy.ndarray; keeps the state that the pickle gives it."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype:
    """Stands for numpy.dtype."""

    def __init__(self, name: Any, *_: Any) -> None:
        self._name, self._order = _text(name), "="

    def __setstate__(self, state: Any) -> None:
        self._order = _text(state[1])

    def resolved(self) -> np.dtype[Any]:
        """The dtype, if it is of integers."""
        if not re.fullmatch(r"[|<>=]?[iu][1248]|u?int(8|16|32|64)", self._name) or self._order not in "|<>=":
            raise TypeError(f"it holds an array of type {self._name}, not of integers")
        return np.dtype(self._name).newbyteorder(self._order)  # type: ignore[arg-type]


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> _Array:
    """How arrays are written by protocol 5."""
    made = _Array()
    made.state = 1, shape, dtype, {"C": False, "F": True}[order], bytes(content)
    return made


def _scalar(dtype: Any, content: Any) -> int:
    """A number of numpy's."""
    return int(np.frombuffer(content, dtype.resolved())[0])


def _encode(text: str, _: str) -> bytes:
    """How Python 3 writes bytes with the protocol of Python 2."""
    return codecs.latin_1_encode(text)[0]


_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which a CIFAR batch does not need; don't trust it"
            )
        return _ADMITTED[module, name]


def load(content: bytes, where: str) -> dict[str, Any]:
    """The dict of a batch or of the meta file.

    Args:
        content: of the file.
        where: the file in messages.

    Returns:
        Values by key; arrays of integers, strings of Python 2 as bytes.

    Raises:
        UserError: it is damaged or asks for anything that the format does not need.
    """
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name not in _OPCODES:
                raise pickle.UnpicklingError(
                    f"it uses {opcode.name}, which a CIFAR batch does not need; don't trust it"
                )
            if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(content):
                raise pickle.UnpicklingError(f"it numbers an object {argument:,}, for which memory would be allocated")
        loaded = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(loaded, dict):
            raise TypeError(f"it holds a {type(loaded).__name__}, not a dict")
        return {_text(key): _array(value) if isinstance(value, _Array) else value for key, value in loaded.items()}
    except Exception as error:  # a damaged pickle makes the unpickler raise anything
        raise UserError(f"{where} is not a batch of a CIFAR Python archive: {error}") from error


def _text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _array(array: _Array) -> npt.NDArray[Any]:
    """The state of a pickled array is (version, shape, dtype, whether column by column, content)."""
    _, shape, dtype, by_column, content = array.state
    kind = dtype.resolved()
    if not isinstance(content, bytes) or math.prod(shape) * kind.itemsize != len(content):
        raise ValueError(
            f"it holds {len(content)} bytes for an array of shape {shape}, {kind.itemsize} bytes per number"
        )
    return np.frombuffer(content, kind).reshape(shape, order="F" if by_column else "C")
