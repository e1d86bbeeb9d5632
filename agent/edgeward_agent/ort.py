"""ONNX Runtime, silent. Import it from here and nowhere else: `from edgeward_agent.ort import onnxruntime`.

Since 1.29 its Linux wheels send telemetry to Microsoft: on first use they write a device id and a database below
~/.cache and upload what models are loaded and run. The only complete opt-out is an environment variable that is read
when the library is loaded, so it has to be set before the import (microsoft/onnxruntime, pull request 29843).
"""

from __future__ import annotations

import os
from typing import Final

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

__all__ = ["QUIET", "onnxruntime"]

QUIET: Final = 4
"""The log level "fatal": what goes wrong is raised, and said once, by whoever asked."""

onnxruntime.disable_telemetry_events()  # Windows, where the variable is not read
onnxruntime.set_default_logger_severity(QUIET)
