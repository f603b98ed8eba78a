"""A whole site on this machine: SoftHSM token, CAs, identities, and the daemon, which is started, killed and held.

It is made from hsm-config/ as the main README says, so it has whatever form the daemon's configuration has now.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Optional

REPOSITORY = Path(os.environ.get("BIRTHMARK_REPOSITORY", Path(__file__).resolve().parents[3]))
PROGRAM = REPOSITORY / "target/release/birthmark"
PATIENCE = 60.0


def wait_until(what: str, true: Any, patience: float = PATIENCE) -> None:
    """Polls; fails when it takes too long."""
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, f"it did not come true in {patience} s that {what}"
        time.sleep(0.01)


class Site:
    """A folder with all of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "site"
        shutil.copytree(REPOSITORY / "hsm-config", self.folder)
        self.environment = dict(os.environ, SOFTHSM2_CONF=str(self.folder / "hsm/softhsm2.conf"))
        self.environment["BIRTHMARK_SOCKET"] = "birthmark.sock"
        self._run(["bash", "softhsm/setup.sh", "hsm"])
        self.birthmark("ceremony", "ceremony.toml", "--yes")
        names = ["--dns", "localhost", "--ip", "127.0.0.1"]
        self.birthmark("station", "enroll", "birthmark", "--role", "server", *names, "--out", "server")
        self._grpc = "127.0.0.1:8443"
        self._listen("127.0.0.1:0")
        self.process: Optional[subprocess.Popen[bytes]] = None
        self.port = 0
        self.http = ""
        self._orders = 0

    def _listen(self, grpc: str) -> None:
        """Any port at first; daemons that follow are where their stations look for them."""
        path = self.folder / "birthmark.toml"
        text = path.read_text(encoding="utf-8")
        text = text.replace(f'"{self._grpc}"', f'"{grpc}"', 1).replace('"127.0.0.1:8446"', '"127.0.0.1:00"')
        # A daemon that measures which number is best takes a second longer to start.
        path.write_text(text.replace('sessions = "auto"', "sessions = 4"), encoding="utf-8")
        self._grpc = grpc

    def _run(self, command: list[str]) -> str:
        run = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, f"{command}: {run.stderr}"
        return run.stdout

    def birthmark(self, *arguments: str) -> str:
        """Runs a command to its end."""
        return self._run([str(PROGRAM), *arguments])

    def station(self, name: str = "line1/1", role: str = "station") -> Path:
        """The identity of a peer, made once."""
        folder = self.folder / f"{role}-{name.replace('/', '-')}"
        if not folder.exists():
            self.birthmark("station", "enroll", name, "--role", role, "--out", str(folder))
        return folder

    @property
    def server(self) -> str:
        """The daemon's address."""
        return f"https://localhost:{self.port}"

    def start(self) -> None:
        """Starts the daemon and waits until it is ready."""
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        command = [str(PROGRAM), "serve", "--config", "birthmark.toml", "--ready-file", "ready.json"]
        with (self.folder / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stderr=log)
        process = self.process

        def is_ready() -> bool:
            assert process.poll() is None, (self.folder / "daemon.log").read_text(encoding="utf-8")[-2000:]
            return ready.exists()

        wait_until("the daemon is ready", is_ready)
        addresses = json.loads(ready.read_text(encoding="utf-8"))
        self.port = int(addresses["grpc"].rpartition(":")[2])
        self.http = addresses["http"]
        self._listen(f"127.0.0.1:{self.port}")

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def end(self) -> None:
        """SIGTERM, and what comes after it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0
        self.process = None

    def hold(self) -> None:
        """The daemon does nothing any more, but its connections stay."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def order(self, quantity: int) -> str:
        """A new order."""
        self._orders += 1
        name = f"lot-{self._orders}"
        self.birthmark("order", "create", name, "--profile", "device", "--quantity", str(quantity))
        return name

    def records(self, order: str) -> list[dict[str, Any]]:
        """Every certificate that was ever recorded under an order."""
        lines = self.birthmark("record", "list", "--order", order, "--json").splitlines()
        return [json.loads(line) for line in lines]
