"""Prepares the graph of a release that has passed its probe: optimised by the runtime, for this processor, once.

Run as `python -m edgeward_agent.update.prepare_child --target FILE RELEASE_DIR` in a process of its own, for the same
reasons as the probe: the serving process writes nothing, and what constant folding does to a hostile graph is not known
before. What was written is loaded again as the serving process will load it, and held to the golden set. It prints one
JSON object and exits with 0 whatever came of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from edgeward_agent.errors import AgentError
from edgeward_agent.update.confinement import Limits, confine


class Preparation(msgspec.Struct, frozen=True, kw_only=True):
    """`key` names the graph that lies at the target now; empty when there is none, and `problem` says why."""

    key: str = ""
    problem: str = ""


def prepare_release(release_dir: Path, target: Path) -> Preparation:
    """Never raises for a release that cannot be prepared."""
    # Imported here, inside the box: numpy and the runtime take their memory and threads under its limits.
    from edgeward_agent.update.probe_child import Refused

    try:
        return _prepare(release_dir, target)
    except Refused as refusal:
        return Preparation(problem=f"the optimised graph answers otherwise: {refusal.verdict.detail}")
    except (AgentError, OSError) as error:
        return Preparation(problem=str(error))
    except MemoryError:
        return Preparation(problem="expected to fit the memory of the child, it did not")


def _prepare(release_dir: Path, target: Path) -> Preparation:
    from edgeward_agent.serving.graphs import can_be_prepared, graph_key
    from edgeward_agent.serving.opening import RUNTIME, plan_session, prepare
    from edgeward_agent.serving.release import MANIFEST, MODEL, check_digest, check_interface, read_manifest
    from edgeward_agent.serving.session import Session
    from edgeward_agent.update.golden import Golden
    from edgeward_agent.update.probe_child import check_cases, check_joined
    from edgeward_agent.update.releases import GOLDEN

    manifest, _ = read_manifest(release_dir / MANIFEST)
    options, model = manifest.serving, release_dir / MODEL
    chosen = plan_session(options).chosen
    if not can_be_prepared(chosen):
        return Preparation(problem=f"{chosen[0]} prepares graphs by itself")
    check_digest(model, manifest)
    prepare(model, options, target)
    session = Session(target, options, prepared=True)
    check_interface(target, session.interface, manifest)
    golden = Golden(release_dir / GOLDEN, manifest)
    check_cases(session, golden, manifest)
    check_joined(session, golden, manifest)
    return Preparation(key=graph_key(RUNTIME, chosen, options))


def main() -> None:
    parser = argparse.ArgumentParser(prog="edgeward_agent.update.prepare_child")
    parser.add_argument("release_dir", type=Path)
    parser.add_argument("--target", type=Path, required=True)
    Limits.add_options(parser)
    args = parser.parse_args()
    confine(Limits.read(args), parent=args.parent)
    sys.stdout.buffer.write(msgspec.json.encode(prepare_release(args.release_dir, args.target)) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
