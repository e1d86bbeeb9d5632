"""How the runtime opens a model: its options, which execution providers, and what is wrong where it does not."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from edgeward_agent.errors import ModelError
from edgeward_agent.ort import QUIET
from edgeward_agent.ort import onnxruntime as ort
from edgeward_agent.serving.cores import usable_cores
from edgeward_agent.serving.providers import (
    CPU,
    ProviderPlan,
    ProviderReport,
    plan_providers,
    report_providers,
    runtime_providers,
)
from edgeward_contract.serving_options import ServingOptions

RUNTIME: Final[str] = ort.__version__
_SOURCE: Final = re.compile(
    r"/\S+\.(?:h|hpp|cc|cpp|cu|cuh):\d+ "
    r"(?:[^()]*::[^()]*\((?:[^()]|\([^()]*\))*\)(?: const)?(?: \[with [^]]*\])? "
    r"(?:(?:(?! was false\.).){1,200} was false\. )?)?"
)


def providers() -> tuple[str, ...]:
    """The execution providers of the installed runtime that work on this machine alone; Azure's calls a cloud."""
    return tuple(each for each in ort.get_available_providers() if not each.startswith("Azure"))


def plan_session(options: ServingOptions) -> ProviderPlan:
    """What a session of these options will be asked to run on, with the runtime that is installed."""
    return plan_providers(options.providers, ort.get_available_providers())


def prepare(path: Path, options: ServingOptions, target: Path) -> None:
    """Write the graph as the runtime optimises it for this processor. Takes the memory of a load.

    Raises:
        ModelError: it does not load, or cannot be written.
    """
    session_options = _session_options(options)
    session_options.optimized_model_filepath = os.fspath(target)
    try:
        _create(path, session_options, ProviderPlan(chosen=(CPU,)), threads=1)
    except Exception as error:
        raise load_error(path, error) from None
    if not target.is_file():
        raise ModelError(f"{path}: expected the runtime to write the optimised graph, it did not")


def open_session(
    path: Path, options: ServingOptions, plan: ProviderPlan, *, prepared: bool
) -> tuple[ort.InferenceSession, ProviderReport]:
    """Try the providers best first; one that refuses is left out, and said."""
    session_options = _session_options(options)
    if prepared:
        session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    create = partial(_create, path, session_options, threads=_threads(options))
    while True:
        try:
            session = create(plan)
        except Exception as error:
            if not plan.beside_the_cpu:
                raise
            plan = plan.without(*_refusing(create, plan, error))
        else:
            return session, report_providers(plan, session.get_providers())


def _refusing(create: Callable[[ProviderPlan], object], plan: ProviderPlan, error: Exception) -> tuple[str, str]:
    """Which of the providers it was, and why: the runtime's error does not always say whose it is."""
    several = plan.beside_the_cpu
    for each in several if len(several) > 1 else ():
        try:
            create(plan.only(each))
        except Exception as own:
            return each, reason(own)
    return several[0], reason(error)


def _create(path: Path, options: ort.SessionOptions, plan: ProviderPlan, *, threads: int) -> ort.InferenceSession:
    # Its own fallback prints to standard output and forgets what failed.
    providers = runtime_providers(plan, threads)
    return ort.InferenceSession(os.fspath(path), options, providers=providers, enable_fallback=0)


def _session_options(wanted: ServingOptions) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = _threads(wanted)
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    for name, size in wanted.dimensions.items():
        options.add_free_dimension_override_by_name(name, size)
    for name, size in wanted.denotations.items():
        options.add_free_dimension_override_by_denotation(name, size)
    return options


def _threads(options: ServingOptions) -> int:
    """Never more than there are cores: the rest would wait for each other."""
    return min(options.threads, usable_cores())


def load_error(path: Path, error: Exception) -> ModelError:
    found = reason(error).removeprefix(f"Load model from {path} failed:")
    return ModelError(f"{path}: expected an ONNX model that loads, got: {found}")


def reason(error: Exception) -> str:
    """ONNX Runtime writes `[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : what happened`.

    What happened may begin with a place in its own source, the function and the condition there, which help nobody.
    """
    parts = str(error).split(" : ", 3)
    text = parts[3] if len(parts) == 4 and parts[0] == "[ONNXRuntimeError]" else str(error)
    return _SOURCE.sub("", " ".join(text.split()))[:500] or type(error).__name__
