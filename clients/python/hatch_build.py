"""Generates the messages of the protocol from proto/ whenever the package is built, so that they cannot go stale.

The result, `_wire.binpb`, is a set of protobuf descriptors. It is as good as generated Python code, but fits every
version of the protobuf package, and is in nobody's way who has generated code of the same files (see `_wire.py`).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RESULT = "src/birthmark_station/_wire.binpb"
PROTOS = ["birthmark/v1/issuance.proto", "google/rpc/error_details.proto"]


class Hook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs protoc."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before each build. In a source distribution all of proto/ is in the package's own."""
        del version
        if self.target_name == "sdist":
            return
        from grpc_tools import protoc

        root = Path(self.root)
        folders = [root.parent.parent / "proto", root / "proto", Path(str(resources.files("grpc_tools"))) / "_proto"]
        arguments = [f"--proto_path={folder}" for folder in folders if folder.is_dir()]
        arguments += [f"--descriptor_set_out={root / RESULT}", "--include_imports", *PROTOS]
        if protoc.main(["protoc", *arguments]) != 0:
            raise RuntimeError("protoc failed, see above")
        build_data["artifacts"].append(RESULT)
