"""The way to a model that does the least: tiny packets on a unix socket, tensors in memory that client and server share.

The wire is described in `docs/spec/frames.md`. Linux alone: it rests on sealed memory files.
"""
