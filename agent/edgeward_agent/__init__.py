"""The agent: runs ONNX models on a device and takes new ones from the fleet."""
