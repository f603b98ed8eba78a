#!/usr/bin/env python3
"""Writes what is in each program, crate by crate, as CycloneDX's JSON: sbom.py FOLDER.

cargo-cyclonedx says what each crate is; `cargo tree` says which of them are built for a program, which are fewer: the features
of one program are not those of the others. Two runs give the same bytes, if SOURCE_DATE_EPOCH is set.
"""

import json
import os
import subprocess
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = {
    "birthmark": ".",
    "birthmark-station": "clients/station",
    "birthmark-bench": "bench",
    "birthmark-aws": "aws-iot",
}


def run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def built(program: str, target: str) -> set[tuple[str, str]]:
    """The crates that cargo builds for a program, those of build scripts and macros as well."""
    tree = ("cargo", "tree", "--locked", "--edges=normal,build", "--prefix=none", "--format={p}")
    lines = run(*tree, f"--package={program}", f"--target={target}").splitlines()
    return {(words[0], words[1].removeprefix("v")) for words in map(str.split, lines) if words}


def listed(program: str, target: str) -> dict[str, Any]:
    """What cargo-cyclonedx says of a program, without what is not built for it and without this machine's folders."""
    text = (ROOT / PROGRAMS[program] / f"{program}.cdx.json").read_text()
    bom: dict[str, Any] = json.loads(text.replace(f"path+file://{ROOT}", "path+file:///usr/src/birthmark"))
    crates = built(program, target)
    own = bom["metadata"]["component"]
    bom["components"] = [c for c in bom["components"] if (c["name"], c["version"]) in crates]
    missing = crates - {(c["name"], c["version"]) for c in [own, *bom["components"]]}
    if missing:
        raise SystemExit(f"sbom: cargo-cyclonedx does not list what {program} is built of: {sorted(missing)}")
    refs = {c["bom-ref"] for c in [own, *bom["components"]]}
    bom["dependencies"] = [
        {**d, **({"dependsOn": [r for r in d["dependsOn"] if r in refs]} if "dependsOn" in d else {})}
        for d in bom["dependencies"]
        if d["ref"] in refs
    ]
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        bom["metadata"]["timestamp"] = datetime.fromtimestamp(int(epoch), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    bom.pop("serialNumber", None)
    # The name of its content, so that another content has another one.
    content = json.dumps(bom, sort_keys=True)
    return {**bom, "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, content).urn}


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: sbom.py FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    target = next(line.split()[1] for line in run("rustc", "-vV").splitlines() if line.startswith("host: "))
    try:
        run("cargo", "cyclonedx", "--quiet", "--quiet", "--format=json", "--spec-version=1.5", f"--target={target}")
        for program in PROGRAMS:
            text = json.dumps(listed(program, target), indent=2) + "\n"
            (folder / f"{program}.cdx.json").write_text(text)
    finally:
        # It writes beside each Cargo.toml, also of crates that are no programs.
        for left in run("git", "ls-files", "--others", "*.cdx.json").splitlines() if (ROOT / ".git").exists() else []:
            if not (ROOT / left).is_relative_to(folder.resolve()):
                (ROOT / left).unlink()


if __name__ == "__main__":
    main()
