"""What a client gets back: arrays by name, and what a model says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgeward_agent.wire.tensors import Array
from edgeward_contract.manifest import TensorSpec


@dataclass(slots=True)  # one is made for each question: frozen and by keyword takes as long as half of its arrays
class Answer:
    """What a model said, and which version of it. `answer["name"]` is an output."""

    model: str
    version: str
    request_id: str
    outputs: Mapping[str, Array]

    def __getitem__(self, name: str) -> Array:
        """Raises KeyError, which says what there is."""
        try:
            return self.outputs[name]
        except KeyError:
            raise KeyError(f"expected one of the outputs {', '.join(self.outputs)}, got {name!r}") from None

    def __contains__(self, name: object) -> bool:
        return name in self.outputs

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What a model takes and gives; -1 in a shape is a free dimension."""

    name: str
    versions: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
