"""What can be wrong with the things that a release is made of."""

from __future__ import annotations

from edgeward_fleet.errors import Invalid


class PackingError(Invalid):
    """A release cannot be made of this."""

    hint = "See docs/quickstart-developer.md for what a release is made of."


class NotAModel(PackingError):
    """The file is no ONNX model that a device could load."""

    hint = "Export the model again; the whole model must be in one .onnx file."


class GoldenRefused(PackingError):
    """The golden set does not fit the model, or the model does not give what the set says."""

    hint = "Make the set from the model as it was validated, or compute it anew with --golden-inputs."


class SheetRefused(PackingError):
    """The description of the release (options or --from FILE) cannot be used."""

    hint = "Correct the key that the message names; docs/quickstart-developer.md shows a complete file."


class FolderRefused(PackingError):
    """The output folder holds something else, or the release folder is not complete."""

    hint = "Choose another folder with --out, or delete this one."
