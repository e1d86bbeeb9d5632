"""Arrays as the protocol has them, or a typed error that says which it has not. Pure."""

from __future__ import annotations

import numpy as np

from edgeward_agent.client.errors import InvalidRequest
from edgeward_agent.wire import tensors
from edgeward_agent.wire.tensors import Array
from edgeward_contract.schema import JsonValue


def as_array(name: str, given: Array) -> Array:
    """What numpy makes of it, for all that is no plain array already.

    Raises:
        InvalidRequest: it makes nothing of it, or what is masked would be sent as if it were measured.
    """
    try:
        array = np.asarray(given)
    except Exception as error:  # an `__array__` may raise anything
        raise InvalidRequest(f"input '{name}': expected an array, got: {error}") from None
    if isinstance(given, np.ndarray) and isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        masked = np.ma.getmaskarray(given).sum()
        refused = InvalidRequest(f"input '{name}': expected an array without a mask, got one with {masked} masked")
        refused.hint = "Say what the model takes for a value that is missing: `array.filled(VALUE)`."
        raise refused
    return array


def sendable(name: str, given: Array) -> Array:
    """An array as the protocol has it: text as objects, the first byte first.

    Raises:
        InvalidRequest: the protocol has no such array.
    """
    array = given if given.__class__ is np.ndarray else as_array(name, given)
    if array.dtype.kind in "UST":
        array = array.astype(object)
    if array.dtype not in tensors.DATATYPE:
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if array.dtype not in tensors.DATATYPE:
        if array.dtype.name == "bfloat16":  # of ml_dtypes; an answer could not be given as one
            raise InvalidRequest(
                f"input '{name}': expected an array of a type of numpy's, got bfloat16; see docs/client.md"
            )
        raise InvalidRequest(f"input '{name}': expected an array of a type that the protocol has, got {array.dtype}")
    return _text(name, array) if array.dtype.hasobject else array


def _text(name: str, array: Array) -> Array:
    """Bytes are text in UTF-8, as they are to a server: the runtime would write b'…' of them."""
    if not all(isinstance(each, str | bytes) for each in array.flat):
        raise InvalidRequest(f"input '{name}': expected text alone in an array of objects, got something else in it")
    elements: list[str | bytes] = array.ravel().tolist()
    text = np.empty(len(elements), object)
    try:
        text[:] = [each.decode() if isinstance(each, bytes) else each for each in elements]
        "".join(text).encode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise InvalidRequest(f"input '{name}': expected text that UTF-8 has, got {error.object!r:.40}") from None
    return text.reshape(array.shape)


def goes_as_it_is(array: Array) -> bool:
    return array.dtype in tensors.DATATYPE and not array.dtype.hasobject


def size_bytes(array: Array) -> int:
    return len(tensors.to_bytes(array)) if array.dtype.hasobject else array.nbytes


def tensor(name: str, array: Array, size: int) -> JsonValue:
    return {
        "name": name,
        "datatype": tensors.DATATYPE[array.dtype].value,
        "shape": list(array.shape),
        "parameters": {"binary_data_size": size},
    }
