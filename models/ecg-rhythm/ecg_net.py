"""The network and its training. The only module here that needs torch."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from ecg_beats import Rhythm
from ecg_simulator import Ecg, batch
from torch import Tensor, nn

SEED: Final = 20261124
TRAINING: Final = 1  # the stream of batches that training reads; what it is judged by comes from others
STEPS: Final = 1500
BATCH: Final = 32
PEAK_RATE: Final = 3e-3
STEM: Final = 32
WIDTHS: Final = (32, 64, 128, 192, 256)
KERNEL: Final = 5
STEM_KERNEL: Final = 15
STEM_STRIDE: Final = 5
FLOOR_MV: Final = 0.02  # a flat line stays flat when windows are brought to one size
BN_EPSILON: Final = 1e-5

State = Mapping[str, npt.NDArray[np.float64]]


class Residual(nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
    """Two convolutions and a short cut; halves the time axis."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(width_in, width_out, KERNEL, stride=2, padding=KERNEL // 2, bias=False)
        self.first_norm = nn.BatchNorm1d(width_out, eps=BN_EPSILON)
        self.second = nn.Conv1d(width_out, width_out, KERNEL, padding=KERNEL // 2, bias=False)
        self.second_norm = nn.BatchNorm1d(width_out, eps=BN_EPSILON)
        self.short_cut = nn.Conv1d(width_in, width_out, 1, stride=2, bias=False)
        self.short_cut_norm = nn.BatchNorm1d(width_out, eps=BN_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(inner)) + self.short_cut_norm(self.short_cut(x)))


class EcgNet(nn.Module):  # type: ignore[misc]  # as above
    """(batch, 12, 5000) in millivolt → (batch, rhythms) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(12, STEM, STEM_KERNEL, stride=STEM_STRIDE, padding=STEM_KERNEL // 2, bias=False)
        self.stem_norm = nn.BatchNorm1d(STEM, eps=BN_EPSILON)
        self.blocks = nn.ModuleList(
            Residual(before, after) for before, after in zip((STEM, *WIDTHS), WIDTHS, strict=False)
        )
        self.head = nn.Linear(2 * WIDTHS[-1], len(Rhythm))

    def forward(self, ecg: Tensor) -> Tensor:
        centred = ecg - ecg.mean(dim=2, keepdim=True)
        size = centred.square().mean(dim=(1, 2), keepdim=True).sqrt()
        x = torch.relu(self.stem_norm(self.stem(centred / (size + FLOOR_MV))))
        for block in self.blocks:
            x = block(x)
        return self.head(torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1))


class Batches:
    """Training batches by number, for a loader that makes them in a process of its own. None is ever seen twice."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, number: int) -> tuple[Ecg, npt.NDArray[np.int64]]:
        if number >= self._steps:
            raise IndexError(number)
        return batch(TRAINING, number, BATCH)


def train(steps: int = STEPS) -> EcgNet:
    """Train on simulated windows; the same machine arrives at the same weights."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # the simulator has the other core
    net = EcgNet()
    optimiser = torch.optim.AdamW(net.parameters(), lr=PEAK_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps, pct_start=0.2)
    progress = _Progress(steps)
    for ecg, labels in torch.utils.data.DataLoader(Batches(steps), batch_size=None, num_workers=1, prefetch_factor=8):
        logits = net(ecg)
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=0.02)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        progress.show(float(loss.detach()), float((logits.argmax(dim=1) == labels).float().mean()))
    net.eval()
    return net


def state_of(net: EcgNet) -> State:
    """Parameters and running statistics by name, in double precision."""
    return {name: value.detach().double().numpy() for name, value in net.state_dict().items()}


def probabilities(net: EcgNet, ecg: Ecg) -> npt.NDArray[np.float64]:
    """What the trained network itself answers (cases, rhythms), in double precision: the reference for the graph."""
    with torch.no_grad():
        logits = net.double()(torch.from_numpy(ecg).double())
        answers: npt.NDArray[np.float64] = torch.softmax(logits, dim=1).numpy()
    return answers


def save(net: EcgNet, path: Path) -> None:
    """Raises OSError."""
    torch.save(net.state_dict(), path)


def load(path: Path) -> EcgNet:
    """A network as `save` left it. Raises OSError, RuntimeError when it is of another shape."""
    net = EcgNet()
    net.load_state_dict(torch.load(path, weights_only=True))
    net.eval()
    return net


class _Progress:
    """Says on stderr each hundred steps how it goes; nothing of it gets into a file."""

    def __init__(self, steps: int) -> None:
        self._steps, self._done, self._began = steps, 0, time.monotonic()
        self._losses: list[float] = []
        self._shares: list[float] = []

    def show(self, loss: float, share: float) -> None:
        self._done += 1
        self._losses.append(loss)
        self._shares.append(share)
        if self._done % 100 == 0:
            elapsed_s = time.monotonic() - self._began
            means = f"loss {np.mean(self._losses):.3f}, right {np.mean(self._shares):.1%}"
            print(f"step {self._done}/{self._steps}: {means}, {elapsed_s:.0f} s", file=sys.stderr, flush=True)
            self._losses, self._shares = [], []
