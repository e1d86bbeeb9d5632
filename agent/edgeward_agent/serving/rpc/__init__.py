"""The Open Inference Protocol v2 over gRPC: the extra `grpc`. Nothing here is imported where nobody asks for it.

`inference.proto` is the wire; `inference_pb2` is made from it (`python packaging/protos.py`).
"""
