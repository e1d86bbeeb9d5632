"""What a request asks of a model, whichever front end read it, and the checks that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from edgeward_agent.serving.aside import Aside
from edgeward_agent.serving.interface import Interface, fits
from edgeward_agent.serving.refusal import Refusal, invalid, unsupported
from edgeward_agent.serving.shared_memory import NoRegions, Region
from edgeward_agent.wire.tensors import Array
from edgeward_contract.manifest import CaptureMode, TensorSpec

_MAX_TEXT: Final = 120
_MAX_UINT64: Final = (1 << 64) - 1


class InferRequest(msgspec.Struct, frozen=True):
    """A request that fits the model: arrays by input name, and for each wanted output whether it goes as bytes.

    `aside` has what does not travel in the body; inputs that it loads are empty in `feeds` until then.
    """

    id: str
    feeds: dict[str, Array]
    outputs: dict[str, bool]
    capture: CaptureMode
    timeout_us: int | None = None  # 0: no deadline; None: the caller does not say
    priority: int = 0  # 1 is the highest, 0 the default
    aside: Aside | None = None


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a server lets requests ask for.

    `json_bytes` is far below what a body may have: JSON in bulk holds up everybody, about 8 ms for each MiB of it.
    `shared_bytes` is for inputs in shared memory, all those of a request together.
    """

    find_region: Callable[[str], Region] = NoRegions().find
    json_bytes: int = 1 << 20
    shared_bytes: int = 64 << 20

    @property
    def json_elements(self) -> int:
        """How many values of an output may be sent as JSON: about what would fit into a request."""
        return self.json_bytes // 16


def expected_input(
    interface: Interface, seen: Collection[str], name: str, datatype: str, shape: Sequence[int]
) -> TensorSpec:
    """What the model says of an input that a request names.

    Raises:
        Refusal: 400, the model has no such input, takes another datatype or shape, or the name came before.
    """
    spec = interface.inputs.get(name)
    if spec is None:
        raise invalid(f"expected inputs {names(interface.inputs)}, got '{short(name)}'")
    if name in seen:
        raise invalid(f"expected each input once, got '{name}' twice")
    if datatype != spec.datatype:
        raise invalid(f"input '{name}': expected datatype {spec.datatype}, got {short(datatype)}")
    if not fits(spec.shape, shape):
        raise invalid(f"input '{name}': expected shape {list(spec.shape)}, got {short(str(shape))}")
    return spec


def check_complete(interface: Interface, feeds: Mapping[str, Array]) -> None:
    """Raises Refusal 400 when an input is missing."""
    if len(feeds) != len(interface.inputs):
        missing = [name for name in interface.inputs if name not in feeds]
        raise invalid(f"expected inputs {names(interface.inputs)}, got none for {names(missing)}")


def check_output(interface: Interface, seen: Collection[str], name: str) -> None:
    """Raises Refusal 400 when the model has no such output, or the name came before."""
    if name not in interface.outputs:
        raise invalid(f"expected outputs of {names(interface.outputs)}, got '{short(name)}'")
    if name in seen:
        raise invalid(f"expected each output once, got '{name}' twice")


def check_parameters(*, priority: int, sequence_id: int | str) -> None:
    """Raises Refusal: 400 for a priority beyond uint64, 501 for a sequence."""
    if priority > _MAX_UINT64:
        raise invalid(f"expected a priority of at most {_MAX_UINT64}, got a larger one")
    if sequence_id:
        raise no_sequences()


def no_sequences() -> Refusal:
    return unsupported("expected no sequence: a model here keeps nothing from one request to the next")


def names(each: Iterable[str]) -> str:
    return short(", ".join(f"'{name}'" for name in each))


def short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
