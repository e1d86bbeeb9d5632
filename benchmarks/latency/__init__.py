"""How long an answer takes: ours, the floor of the system, and what else people serve ONNX with."""
