"""The servers that are compared: how each is set up, started, killed, and asked what it has recorded.

All have a P-256 issuing key. birthmark and step-ca have it in a SoftHSM token, whose folder stands for the HSM: it is
not on the disk that loses its power. OpenBao has it in its own storage, encrypted, as its PKI engine does. What each
stores is in the folder that `start` is given; everything else is in the folder of `__init__`.
"""

import base64
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "target/peers"
BIRTHMARK = pathlib.Path(os.environ.get("BIRTHMARK", ROOT / "target/release/birthmark"))
# A server that is not ready after so long has failed to start.
PATIENCE = 60
# As the client (client/main.go) and `birthmark bench` name devices.
DEVICE = re.compile(rb"device-[0-9]{7}")


class Failed(Exception):
    pass


def run(*command, **options) -> str:
    """A command's standard output; what it says when it fails is the error."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(str(word) for word in command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def free_port() -> int:
    with socket.socket() as at:
        at.bind(("127.0.0.1", 0))
        return at.getsockname()[1]


def device_of(certificate: bytes) -> str | None:
    """The device in a certificate's subject."""
    found = DEVICE.search(certificate)
    return found.group().decode() if found else None


def print_table(rows: list[list[str]], left: int) -> None:
    """The first row has the headings; the first `left` columns begin on the left."""
    widths = [max(len(line[column]) for line in rows) for column in range(len(rows[0]))]
    for line in rows:
        padded = enumerate(zip(line, widths, strict=True))
        cells = [cell.ljust(width) if column < left else cell.rjust(width) for column, (cell, width) in padded]
        print("  ".join(cells).rstrip())


class Token:
    """A SoftHSM token, used directly, or through the module that counts signatures (count.c)."""

    def __init__(self, folder: pathlib.Path, label: str, counted: bool):
        said = run(ROOT / "hsm-config/softhsm/setup.sh", folder, label)
        self.module = next(line.split()[1] for line in said.splitlines() if line.split()[:1] == ["module"])
        self.used = TOOLS / "count.so" if counted else self.module
        self.folder, self.label = folder, label
        self.count = folder / "signatures"
        self.count.write_bytes(bytes(8))
        self.environment = {
            "SOFTHSM2_CONF": str(folder / "softhsm2.conf"),
            "COUNT_MODULE": self.module,
            "COUNT_FILE": str(self.count),
            "COUNT_LABEL": "issuing",
        }

    def signatures(self) -> int:
        """How many the issuing key has made, in all."""
        return int.from_bytes(self.count.read_bytes(), "little")


def make_authority(folder: pathlib.Path) -> None:
    """root.pem, and issuing.pem with issuing-key.pem, which may issue devices only."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7300")
    certificate = ("openssl", "req", "-x509", *key)
    run(*certificate, "-subj", "/CN=Peers Root", "-keyout", "root-key.pem", "-out", "root.pem", cwd=folder)
    constraints = ("-addext", "basicConstraints=critical,CA:TRUE,pathlen:0")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    by_root = ("-CA", "root.pem", "-CAkey", "root-key.pem", "-keyout", "issuing-key.pem", "-out", "issuing.pem")
    run(*certificate, "-subj", "/CN=Peers Issuing", *constraints, *usage, *by_root, cwd=folder)


class Program:
    """One of the servers; subclasses say how it is set up."""

    name: str
    keeps: str
    # The trust anchors and intermediates of its certificates, for `openssl verify`.
    root: pathlib.Path
    issuing: pathlib.Path
    token: Token | None = None

    def __init__(self, folder: pathlib.Path, counted: bool = False):
        """`counted`: a module between server and HSM, if it has one, counts the signatures of the issuing key."""
        self.folder = folder
        folder.mkdir(parents=True)
        self.process: subprocess.Popen | None = None
        self.data = folder
        self.log = folder / "log"

    def spawn(self, *command, environment: dict[str, str] | None = None) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.folder,
                env=os.environ | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_until(self, ready) -> None:
        end = time.monotonic() + PATIENCE
        while not ready():
            if self.process.poll() is not None or time.monotonic() > end:
                ended = self.process.poll()
                self.kill()
                how = "is not ready in time" if ended is None else f"ended with {ended}"
                raise Failed(f"{self.name} {how}: {self.log.read_text(errors='replace')[-600:].strip()}")
            time.sleep(0.05)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """An orderly stop."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()

    def freeze(self) -> None:
        """Stops every thread; those within a system call end it and go no further."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task")
        while True:
            states = []
            for task in list(tasks.iterdir()):
                try:
                    states.append((task / "stat").read_text().rpartition(") ")[2][0])
                except (FileNotFoundError, ProcessLookupError):
                    continue
            if all(state in "TDZX" for state in states):
                return
            time.sleep(0.001)

    def start(self, data: pathlib.Path) -> None:
        raise NotImplementedError

    def client(self) -> list[str]:
        """The client's arguments that name this server."""
        raise NotImplementedError

    def records(self) -> tuple[list[bytes], int]:
        """The certificates that it knows, and how many serial numbers it gave out and never issued."""
        raise NotImplementedError

    def repair(self) -> str | None:
        """What its manual or its message advises when it does not start; gives what was done, if there is something."""
        return None


class Birthmark(Program):
    name = "birthmark"
    keeps = "SoftHSM; serial numbers before signing, certificates"

    def __init__(self, folder: pathlib.Path, counted: bool = False):
        super().__init__(folder)
        self.token = Token(folder / "hsm", "birthmark", counted)
        self.uri = f"pkcs11:token=birthmark{{}}?module-path={{}}&pin-source=file:{folder}/hsm/pin"
        issued_by = 'issuer = { certificate = "ca/root.pem", key = "root" }'
        steps = [
            ("root", "root", 'subject = ["CN=Peers Root"]\ndays = 7300\ncertificate = "ca/root.pem"'),
            (
                "intermediate",
                "issuing",
                f'{issued_by}\nsubject = ["CN=Peers Issuing"]\ndays = 7200\ncertificate = "ca/issuing.pem"',
            ),
            (
                "station-ca",
                "station-ca",
                'subject = ["CN=Peers Stations"]\ndays = 3650\ncertificate = "ca/station-ca.pem"',
            ),
            ("audit-key", "audit", 'public_key = "ca/audit.pem"'),
        ]
        uri = self.uri.format("", self.token.module)
        ceremony = f'[environment]\nSOFTHSM2_CONF = "{folder}/hsm/softhsm2.conf"\n[token]\nuri = "{uri}"\n'
        ceremony += '[ceremony]\nrecord = "ca/record.json"\n'
        for do, key, rest in steps:
            ceremony += f'[[step]]\ndo = "{do}"\nkey = "{key}"\nkey_type = "p256"\n{rest}\n'
        (folder / "ceremony.toml").write_text(ceremony)
        run(BIRTHMARK, "ceremony", "ceremony.toml", "--yes", cwd=folder)
        self.configure(folder / "data")
        enroll = ("station", "enroll")
        self.command(*enroll, "server", "--role", "server", "--out", "tls", "--dns", "localhost", "--ip", "127.0.0.1")
        self.command(*enroll, "line1/1", "--role", "station", "--out", "station")
        self.root, self.issuing = folder / "ca/root.pem", folder / "ca/issuing.pem"
        self.socket = ("--socket", f"{folder}/admin.sock")

    def configure(self, data: pathlib.Path) -> None:
        def key(label):
            return self.uri.format(f";object={label}", self.token.used)

        (self.folder / "birthmark.toml").write_text(
            f'[environment]\nSOFTHSM2_CONF = "{self.folder}/hsm/softhsm2.conf"\n'
            '[server]\nlisten = "127.0.0.1:0"\ncertificate = "tls/cert.pem"\nkey = "tls/key.pem"\n'
            'client_ca = "ca/station-ca.pem"\nsocket = "admin.sock"\n'
            f'[ledger]\npath = "{data}"\nmin_free_mib = 1\n[audit]\nkey_uri = "{key("audit")}"\n'
            f'[station_ca]\ncertificate = "ca/station-ca.pem"\nkey_uri = "{key("station-ca")}"\n'
            f'[issuers.peers]\nchain = ["ca/issuing.pem", "ca/root.pem"]\nkey_uri = "{key("issuing")}"\n'
            '[profiles.device]\nissuer = "peers"\nvalidity_days = 3650\n'
        )

    def command(self, *arguments) -> str:
        return run(BIRTHMARK, *arguments, cwd=self.folder, env=os.environ | self.token.environment)

    def start(self, data: pathlib.Path) -> None:
        new = not data.exists()
        self.data = data
        self.configure(data)
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        serve = (BIRTHMARK, "serve", "--config", "birthmark.toml", "--ready-file", ready)
        self.spawn(*serve, environment=self.token.environment)
        self.wait_until(ready.exists)
        port = json.loads(ready.read_text())["grpc"].rpartition(":")[2]
        self.url = f"https://127.0.0.1:{port}"
        if new:
            self.command("order", "create", "lot", *self.socket, "--profile", "device", "--quantity", "1000000000")

    def client(self) -> list[str]:
        station = self.folder / "station"
        arguments = ["-to", "birthmark", "-url", self.url, "-authority", f"{station}/ca.pem", "-identity", str(station)]
        return [*arguments, "-order", "lot"]

    def records(self) -> tuple[list[bytes], int]:
        listed = self.command("record", "list", *self.socket, "--order", "lot", "--json").splitlines()
        known = [ssl.PEM_cert_to_DER_cert(json.loads(line)["certificate_pem"]) for line in listed]
        # What was reserved and not issued is `abandoned` since the start: the journal names number, device and reason.
        numbers: dict[str, set[str]] = {"reserved": set(), "issued": set()}
        for line in self.command("journal", "dump", self.data).splitlines():
            entry = json.loads(line)
            if entry["event"] in numbers:
                numbers[entry["event"]].add(entry["serial_number"])
        return known, len(numbers["reserved"] - numbers["issued"])


class StepCa(Program):
    name = "step-ca"
    keeps = "SoftHSM; certificates, used tokens (badger)"

    def __init__(self, folder: pathlib.Path, counted: bool = False):
        super().__init__(folder)
        make_authority(folder)
        self.root, self.issuing = folder / "root.pem", folder / "issuing.pem"
        self.token = Token(folder / "hsm", "peers", counted)
        self.pin = (folder / "hsm/pin").read_text().strip()
        at = ("--token", "peers", "--label", "issuing", "--id", "0a10", "--pin", self.pin)
        environment = os.environ | self.token.environment
        run(
            "softhsm2-util",
            "--module",
            self.token.module,
            "--import",
            "issuing-key.pem",
            *at,
            cwd=folder,
            env=environment,
        )
        key = folder / "provisioner.pem"
        run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
        public = ["openssl", "pkey", "-in", str(key), "-pubout", "-outform", "DER"]
        der = subprocess.run(public, capture_output=True, check=True).stdout
        # A P-256 key's SubjectPublicKeyInfo ends in its two coordinates.
        x, y = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (der[-64:-32], der[-32:]))
        self.provisioner = {
            "type": "JWK",
            "name": "peers",
            "key": {"use": "sig", "kty": "EC", "kid": "peers", "crv": "P-256", "alg": "ES256", "x": x, "y": y},
            "claims": {"maxTLSCertDuration": "87600h", "defaultTLSCertDuration": "87600h"},
        }

    def start(self, data: pathlib.Path) -> None:
        self.data = data
        data.mkdir(exist_ok=True)
        port = free_port()
        configuration = {
            "root": str(self.root),
            "crt": str(self.issuing),
            "key": "pkcs11:id=0a10;object=issuing",
            "kms": {
                "type": "pkcs11",
                "uri": f"pkcs11:module-path={self.token.used};token=peers?pin-source={self.folder}/hsm/pin",
            },
            "address": f"127.0.0.1:{port}",
            "dnsNames": ["127.0.0.1", "localhost"],
            "logger": {"format": "json"},
            "db": {"type": "badgerv2", "dataSource": str(data / "db")},
            "authority": {"provisioners": [self.provisioner]},
        }
        (self.folder / "ca.json").write_text(json.dumps(configuration))
        self.url = f"https://127.0.0.1:{port}"
        self.spawn(TOOLS / "step-ca", "ca.json", environment=self.token.environment | {"STEPPATH": str(self.folder)})
        trusted = ssl.create_default_context(cafile=self.root)

        def ready():
            try:
                with urllib.request.urlopen(f"{self.url}/health", context=trusted, timeout=5) as reply:
                    return reply.status == 200
            except (urllib.error.URLError, OSError):
                return False

        self.wait_until(ready)

    def client(self) -> list[str]:
        key = self.folder / "provisioner.pem"
        return ["-to", "step-ca", "-url", self.url, "-authority", str(self.root), "-key", str(key)]

    def records(self) -> tuple[list[bytes], int]:
        # Its interface has no list, and one process at a time has the database.
        self.stop()
        known = [base64.b64decode(line) for line in run(TOOLS / "stepdb", self.data / "db").splitlines()]
        self.start(self.data)
        return known, 0

    def repair(self) -> str | None:
        run(TOOLS / "stepdb", "-truncate", self.data / "db")
        return "value log truncated"


class OpenBao(Program):
    name = "OpenBao"
    keeps = "software key; certificates (raft)"

    def __init__(self, folder: pathlib.Path, counted: bool = False):
        super().__init__(folder)
        make_authority(folder)
        self.root, self.issuing = folder / "root.pem", folder / "issuing.pem"
        self.secrets: dict = {}
        self.token_file = folder / "token"

    def call(self, method: str, path: str, body: dict | None = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Vault-Token": self.secrets.get("root_token", "")}
        request = urllib.request.Request(f"{self.url}/v1/{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                text = reply.read()
        except urllib.error.HTTPError as error:
            if method == "LIST" and error.code == 404:
                # An empty list is answered like this.
                return {"data": {"keys": []}}
            raise Failed(f"{method} {path}: {error} {error.read()[:300]!r}") from error
        return json.loads(text) if text else {}

    def health(self) -> int:
        """501: not initialised, 503: sealed, 429: not active yet, 200: ready."""
        try:
            with urllib.request.urlopen(f"{self.url}/v1/sys/health", timeout=5) as reply:
                return reply.status
        except urllib.error.HTTPError as error:
            return error.code
        except (urllib.error.URLError, OSError):
            return 0

    def start(self, data: pathlib.Path) -> None:
        new = not data.exists()
        self.data = data
        data.mkdir(exist_ok=True)
        port, cluster = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        (self.folder / "openbao.hcl").write_text(
            f'storage "raft" {{\n  path = "{data}"\n  node_id = "peers"\n}}\n'
            f'listener "tcp" {{\n  address = "127.0.0.1:{port}"\n  cluster_address = "127.0.0.1:{cluster}"\n'
            "  tls_disable = true\n}\n"
            f'api_addr = "{self.url}"\ncluster_addr = "https://127.0.0.1:{cluster}"\nlog_level = "warn"\n'
        )
        self.spawn(TOOLS / "bao", "server", "-config=openbao.hcl")
        self.wait_until(lambda: self.health() in (501, 503))
        if new:
            self.secrets = {}
            self.secrets = self.call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
            self.token_file.write_text(self.secrets["root_token"])
        self.call("PUT", "sys/unseal", {"key": self.secrets["keys"][0]})
        self.wait_until(lambda: self.health() == 200)
        if new:
            self.call("POST", "sys/mounts/pki", {"type": "pki", "config": {"max_lease_ttl": "87600h"}})
            files = ("issuing-key.pem", "issuing.pem", "root.pem")
            bundle = "".join((self.folder / name).read_text() for name in files)
            self.call("POST", "pki/config/ca", {"pem_bundle": bundle})
            # What is issued is stored, unless a role says no_store.
            role = {"allow_any_name": True, "enforce_hostnames": False, "server_flag": False, "key_type": "any"}
            self.call("POST", "pki/roles/device", role | {"ttl": "80000h", "max_ttl": "87600h"})

    def client(self) -> list[str]:
        return ["-to", "openbao", "-url", self.url, "-token-file", str(self.token_file)]

    def records(self) -> tuple[list[bytes], int]:
        known = []
        for number in self.call("LIST", "pki/certs")["data"]["keys"]:
            der = ssl.PEM_cert_to_DER_cert(self.call("GET", f"pki/cert/{number}")["data"]["certificate"])
            # The CA's own are among them.
            if device_of(der):
                known.append(der)
        return known, 0


def main(document: str, work: Callable[[pathlib.Path], None]) -> None:
    """A script of this folder: its help is `document`; `work` gets the folder that is named, or a temporary one."""
    if sys.argv[1:2] in (["-h"], ["--help"]):
        print(document)
        return
    script = pathlib.Path(sys.argv[0])
    try:
        if not os.access(BIRTHMARK, os.X_OK):
            raise Failed(f"there is no {BIRTHMARK}; build it with `cargo build --release`, or name it with BIRTHMARK")
        temporary = len(sys.argv) < 2
        prefix = f"peers-{script.stem}-"
        folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix) if temporary else sys.argv[1]).absolute()
        if not temporary:
            if folder.exists():
                raise Failed(f"{folder} exists; choose a new folder")
            folder.mkdir(parents=True)
        try:
            work(folder)
        finally:
            if temporary:
                shutil.rmtree(folder)
    except Failed as failed:
        sys.exit(f"{script.name}: {failed}")
