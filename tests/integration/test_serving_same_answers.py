"""Every way to ask gives what the model says, however often a question of one form is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeward_agent.client import Client
from support.serving import device, manifest_for, passing_model, write_release


@pytest.mark.parametrize("way", ["http", "unix", "frames"])
def test_an_input_that_is_an_output_too_comes_back_as_it_was_sent(tmp_path: Path, way: str) -> None:
    """Memory is bound for a form that is asked again, and the runtime writes no such output to it."""
    model = passing_model(tmp_path / "m" / "model.onnx")
    with device(tmp_path / "d", with_frames=True) as made:
        made.commit(write_release(model.parent, manifest_for(model, "passing")))
        made.start()
        unix = f"unix:{made.unix_path}"
        addresses = {"http": f"http://127.0.0.1:{made.port}", "unix": unix, "frames": f"frames:{made.frames_path}"}
        with Client(addresses[way], http=unix if way == "frames" else None) as client:
            for number in range(20):
                sent = np.full((1, 4), number, np.float32)
                answer = client.infer("passing", {"in": sent})
                assert np.array_equal(answer["in"], sent) and np.array_equal(answer["risk"], sent)
