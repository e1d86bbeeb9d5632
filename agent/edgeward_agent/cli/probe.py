"""`edgeward-agent probe`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from edgeward_agent.cli.exits import FAILED
from edgeward_agent.cli.options import json_option
from edgeward_agent.ports import ProbeVerdict
from edgeward_agent.update.probe import examine


@click.command()
@click.argument("release_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
def probe(release_dir: Path, as_json: bool) -> None:
    """Check a release folder (manifest.json, model.onnx, golden.npz) exactly as a device does before it serves it.

    The model is loaded in a process of its own under limits of time and memory, its golden set is run, and latency
    and memory are held against the manifest. Ends with 1 when the release is refused.
    """
    verdict = examine(release_dir)
    click.echo(json.dumps(_document(verdict)) if as_json else _text(verdict))
    sys.exit(0 if verdict.ok else FAILED)


def _document(verdict: ProbeVerdict) -> dict[str, str | int]:
    return {
        "verdict": verdict.reason.value,
        "detail": verdict.detail,
        "cases": verdict.cases,
        "p50_us": verdict.p50_us,
        "p99_us": verdict.p99_us,
        "peak_memory_bytes": verdict.peak_memory_bytes,
    }


def _text(verdict: ProbeVerdict) -> str:
    if not verdict.ok:
        return f"refused: {verdict.reason.value}: {verdict.detail}"
    memory_mb = verdict.peak_memory_bytes / 1e6
    return f"good: {verdict.detail}; p50 {verdict.p50_us} µs, p99 {verdict.p99_us} µs, {memory_mb:.1f} MB"
