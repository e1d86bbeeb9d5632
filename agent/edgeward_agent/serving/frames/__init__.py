"""The way to a model that does the least: tiny packets on a unix socket, tensors in memory that both sides share.

The wire is described in `docs/spec/frames.md`. Linux alone: it rests on sealed memory files.
"""
