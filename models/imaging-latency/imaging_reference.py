"""The network once more, in plain numpy and double precision: what the graph is held to by its golden set.

It shares the weights with the graph and nothing else; a convolution here is a sum of shifted products.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from imaging_network import Layer, Network

Floats = npt.NDArray[np.float64]


def scores(network: Network, image: npt.NDArray[np.float32]) -> Floats:
    """The answer (1000,) to one image (3, 224, 224), RGB from 0 to 1."""
    x = image.astype(np.float64) * 2 - 1
    kept = x
    for layer in network.layers:
        kept = x if layer.keep else kept
        x = _depthwise(layer, x) if layer.depthwise else _dense(layer, x)
        x += layer.bias[:, np.newaxis, np.newaxis]
        x = np.clip(x, 0, 6) if layer.clipped else x
        x = x + kept if layer.add_kept else x
    return np.asarray(x.mean(axis=(1, 2)) @ network.classifier.astype(np.float64) + network.classifier_bias)


def _dense(layer: Layer, x: Floats) -> Floats:
    """Each output channel from all input channels."""
    return sum(
        (
            np.tensordot(layer.weight[:, :, row, column].astype(np.float64), part, axes=1)
            for row, column, part in _shifted(layer, x)
        ),
        start=np.zeros(()),
    )


def _depthwise(layer: Layer, x: Floats) -> Floats:
    """Each output channel from its own input channel."""
    return sum(
        (
            layer.weight[:, 0, row, column].astype(np.float64)[:, np.newaxis, np.newaxis] * part
            for row, column, part in _shifted(layer, x)
        ),
        start=np.zeros(()),
    )


def _shifted(layer: Layer, x: Floats) -> list[tuple[int, int, Floats]]:
    """For each place of the kernel: the part of the padded image that it meets."""
    kernel, step, edge = layer.weight.shape[2], layer.stride, layer.padding
    padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge)))
    height, width = ((size + 2 * edge - kernel) // step + 1 for size in x.shape[1:])
    return [
        (row, column, padded[:, row : row + step * height : step, column : column + step * width : step])
        for row in range(kernel)
        for column in range(kernel)
    ]
