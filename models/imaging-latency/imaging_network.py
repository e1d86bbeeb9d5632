"""The layers and weights of the network: its shape after Sandler et al., "MobileNetV2" (CVPR 2018), its weights drawn.

Batch normalisation is folded away, as every exporter for inference does, so each convolution has a bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float32]

SEED: Final = 20261124
SIDE_PX: Final = 224
CLASSES: Final = 1000
STEM: Final = 32
LAST: Final = 1280
# Expansion, channels, repeats, stride of the first: table 2 of the paper.
BLOCKS: Final = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A convolution and what follows. `weight` is (out, in / groups, kernel, kernel), `bias` (out,).

    `keep` remembers the input of this layer, `add_kept` adds what was remembered to its result.
    """

    name: str
    weight: Weights
    bias: Weights
    stride: int = 1
    depthwise: bool = False
    clipped: bool = True  # ReLU6; the narrow ends of the blocks are linear
    keep: bool = False
    add_kept: bool = False

    @property
    def padding(self) -> int:
        return int(self.weight.shape[2]) // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """All layers in order, and the classifier on their mean over the image: (1280, 1000) and (1000,)."""

    layers: tuple[Layer, ...]
    classifier: Weights
    classifier_bias: Weights

    @property
    def parameters(self) -> int:
        convolutions = sum(each.weight.size + each.bias.size for each in self.layers)
        return int(convolutions + self.classifier.size + self.classifier_bias.size)


def draw_network(seed: int = SEED) -> Network:
    """The network with the weights that belong to `seed`: the same bits on every machine."""
    draw = _Draw(seed)
    return Network(
        layers=tuple(_layers(draw)),
        classifier=draw.uniform((LAST, CLASSES), fan_in=LAST),
        classifier_bias=draw.uniform((CLASSES,), fan_in=LAST),
    )


class _Draw:
    """Uniform numbers from the bits of PCG64: numpy promises its bits for ever, its distributions only per version."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, shape: tuple[int, ...], *, fan_in: int) -> Weights:
        """He's bound, with which the size of the signal lasts through clipped layers."""
        share = (self._bits.random_raw(int(np.prod(shape))) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        bound = np.sqrt(6.0 / fan_in)
        weights: Weights = ((2 * share - 1) * bound).astype(np.float32).reshape(shape)
        return weights

    def layer(self, name: str, width_in: int, width_out: int, kernel: int) -> Layer:
        """An ordinary layer; one that filters each channel by itself has a `width_in` of 1."""
        fan_in = width_in * kernel * kernel
        return Layer(
            name=name,
            weight=self.uniform((width_out, width_in, kernel, kernel), fan_in=fan_in),
            bias=np.float32(0.1) * self.uniform((width_out,), fan_in=fan_in),
        )


def _layers(draw: _Draw) -> Iterator[Layer]:
    yield replace(draw.layer("stem", 3, STEM, 3), stride=2)
    width, number = STEM, 0
    for expansion, width_out, repeats, first_stride in BLOCKS:
        for repeat in range(repeats):
            yield from _block(draw, f"block{number}", width, width_out, expansion, first_stride if repeat == 0 else 1)
            width, number = width_out, number + 1
    yield draw.layer("last", width, LAST, 1)


def _block(draw: _Draw, name: str, width_in: int, width_out: int, expansion: int, stride: int) -> Iterator[Layer]:
    """An inverted residual: widen, filter each channel by itself, narrow."""
    wide, short_cut = width_in * expansion, stride == 1 and width_in == width_out
    if expansion > 1:
        yield replace(draw.layer(f"{name}.expand", width_in, wide, 1), keep=short_cut)
    yield replace(draw.layer(f"{name}.depthwise", 1, wide, 3), stride=stride, depthwise=True)
    yield replace(draw.layer(f"{name}.project", wide, width_out, 1), clipped=False, add_kept=short_cut)
