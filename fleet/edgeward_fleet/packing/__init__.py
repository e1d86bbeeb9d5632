"""Makes a release of an ONNX file: reads its tensors, holds the golden set to it, writes the manifest."""
