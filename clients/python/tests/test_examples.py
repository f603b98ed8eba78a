"""The examples and the README: what they say is run."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from csrs import csrs, fresh
from site_of_tests import Site

PACKAGE = Path(__file__).resolve().parents[1]
EXAMPLES = PACKAGE / "examples"


def environment(site: Site) -> dict[str, str]:
    """What tells a program the daemon and who it is."""
    scripts = str(Path(sys.executable).parent)
    found = dict(os.environ, BIRTHMARK_SERVER=site.server, BIRTHMARK_IDENTITY=str(site.station()))
    found["PATH"] = scripts + os.pathsep + found["PATH"]
    return found


def run(site: Site, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs an example to its end."""
    return subprocess.run(
        command, cwd=cwd, env=environment(site), capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: path.name)
def test_example_compiles(path: Path, tmp_path: Path) -> None:
    py_compile.compile(str(path), str(tmp_path / "compiled"), doraise=True)


def test_pytest_stand_gives_and_confirms_identities(site: Site, tmp_path: Path) -> None:
    order, serial_number = site.order(1), fresh("SN")
    stand = shutil.copytree(EXAMPLES / "pytest_stand", tmp_path / "stand")
    command = [sys.executable, "-m", "pytest", "-q", "--order", order, "--serial-number"]
    passed = run(site, *command, serial_number, cwd=stand)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    (record,) = site.records(order)
    assert (record["device_id"], record["state"]) == (serial_number, "confirmed")
    failed = run(site, *command, fresh("SN"), cwd=stand)
    assert failed.returncode == 1 and "ORDER_EXHAUSTED" in failed.stdout


@pytest.mark.skipif(importlib.util.find_spec("openhtf") is None, reason="OpenHTF is not installed")
def test_openhtf_stand_gives_and_confirms_identities(site: Site, tmp_path: Path) -> None:
    order, serial_number = site.order(1), fresh("SN")
    passed = run(site, sys.executable, str(EXAMPLES / "openhtf_stand.py"), serial_number, order, cwd=tmp_path)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    (record,) = site.records(order)
    assert (record["device_id"], record["state"]) == (serial_number, "confirmed")
    failed = run(site, sys.executable, str(EXAMPLES / "openhtf_stand.py"), fresh("SN"), order, cwd=tmp_path)
    assert failed.returncode == 1


def test_asyncio_example_gives_certificates(site: Site, tmp_path: Path) -> None:
    order = site.order(3)
    paths = []
    for device, content in csrs("many", 4):
        paths.append(tmp_path / f"{device}.csr")
        paths[-1].write_bytes(content)
    ended = run(site, sys.executable, str(EXAMPLES / "asyncio_many.py"), order, *map(str, paths), cwd=tmp_path)
    assert ended.returncode == 1 and ended.stdout.count("ORDER_EXHAUSTED") == 1, ended.stderr
    assert len(site.records(order)) == 3


def blocks(language: str) -> list[str]:
    """The README's code."""
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found
    return found


def test_readme_runs(site: Site, tmp_path: Path) -> None:
    """Every Python block as a program of its own, every shell line but those that install; with the names it uses."""
    shutil.copytree(site.station(), tmp_path / "line1-tester1")
    (tmp_path / "csrs").mkdir()
    order = site.order(50)
    (device, content), *others = csrs("SN", 5)
    (tmp_path / "device.csr").write_bytes(content)
    for other, other_content in others:
        (tmp_path / "csrs" / f"{other}.csr").write_bytes(other_content)

    def here(text: str) -> str:
        text = text.replace("https://ca.line1:8443", site.server).replace("lot-42", order)
        return text.replace("SN-0001", device)

    python = blocks("python")
    for number, code in enumerate(python):
        ended = run(site, sys.executable, "-c", here(code), cwd=tmp_path)
        assert ended.returncode == 0, f"Python block {number}: {ended.stderr}"
    for line in "".join(blocks("sh")).replace("\\\n", " ").splitlines():
        command = line.partition("#")[0].strip()
        if not command or command.startswith(("pip ", "make ")) or "--watch" in command:
            continue
        ended = run(site, "sh", "-c", here(command), cwd=tmp_path)
        assert ended.returncode == 0, f"{command}: {ended.stderr}"
    assert {record["state"] for record in site.records(order)} == {"confirmed"}
