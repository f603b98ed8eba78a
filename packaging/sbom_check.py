#!/usr/bin/env python3
"""Holds the lists of sbom.py against CycloneDX's schema and Cargo.lock: sbom_check.py FOLDER."""

import json
import sys
import tomllib
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def main() -> None:
    lock = tomllib.loads((Path(__file__).parent.parent / "Cargo.lock").read_text())
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}
    paths = sorted(Path(sys.argv[1]).glob("*.cdx.json"))
    if len(paths) != 4:
        raise SystemExit(f"sbom_check: four programs, but {len(paths)} lists in {sys.argv[1]}")
    for path in paths:
        text = path.read_text()
        if error := JsonStrictValidator(SchemaVersion.V1_5).validate_str(text):
            raise SystemExit(f"sbom_check: {path} is not CycloneDX 1.5: {error}")
        bom = json.loads(text)
        for component in bom["components"]:
            name = (component["name"], component["version"])
            told = [h["content"] for h in component.get("hashes", []) if h["alg"] == "SHA-256"]
            if name not in checksums or (checksums[name] and told != [checksums[name]]):
                raise SystemExit(f"sbom_check: {path}: {name} is not that of Cargo.lock")
            if not component.get("licenses"):
                raise SystemExit(f"sbom_check: {path}: {name} has no licence")
        print(f"{path.name}: {len(bom['components'])} crates, valid CycloneDX 1.5")


if __name__ == "__main__":
    main()
