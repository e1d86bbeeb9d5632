"""Make the Python of the gRPC front end from its .proto: `python packaging/protos.py [FOLDER]`. Wants the dev group.

Classes live in a pool of their own. The default one takes a name once, and a program that also imports
`tritonclient.grpc` has these names in it already. Nothing in the result depends on the compiler's version, as protoc's
own Python would.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

SOURCE: Final = Path(__file__).parents[1] / "agent" / "edgeward_agent" / "serving" / "rpc" / "inference.proto"
_LINE_BYTES: Final = 64
_MODULE: Final = '''\
# Made from {proto} by packaging/protos.py, do not edit.
"""Messages of the Open Inference Protocol v2 over gRPC, in a pool of their own."""

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

DESCRIPTOR = DescriptorPool().AddSerializedFile(
{data}
)

{classes}
'''


def main(folder: Path) -> None:
    """Write both files into `folder`."""
    with tempfile.TemporaryDirectory() as scratch:
        found = Path(scratch, "set")
        _compile(f"--descriptor_set_out={found}", f"--pyi_out={scratch}")
        (described,) = FileDescriptorSet.FromString(found.read_bytes()).file
        stub = Path(scratch, f"{SOURCE.stem}_pb2.pyi").read_text()
    data = described.SerializeToString(deterministic=True)
    lines = (f"    {data[at : at + _LINE_BYTES]!r}" for at in range(0, len(data), _LINE_BYTES))
    names = (message.name for message in described.message_type)
    classes = (f'{name} = GetMessageClass(DESCRIPTOR.message_types_by_name["{name}"])' for name in names)
    module = _MODULE.format(proto=SOURCE.name, data="\n".join(lines), classes="\n".join(classes))
    (folder / f"{SOURCE.stem}_pb2.py").write_text(module)
    (folder / f"{SOURCE.stem}_pb2.pyi").write_text(stub)


def _compile(*outputs: str) -> None:
    known = resources.files("grpc_tools") / "_proto"
    status = protoc.main(["protoc", f"-I{SOURCE.parent}", f"-I{known}", *outputs, str(SOURCE)])
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE.parent)
