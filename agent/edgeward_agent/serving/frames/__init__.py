"""The shortest way to a model: tiny packets on a unix socket, tensors in memory that client and server share.

The wire is described in `docs/spec/frames.md`. Linux alone: it rests on sealed memory files.
"""
