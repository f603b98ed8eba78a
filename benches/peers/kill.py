#!/usr/bin/env python3
"""Kills birthmark and its peers with requests in flight, and counts what their records then lack; prints one table.

  kill.py [FOLDER]     FOLDER: a new one that keeps what every round had; default: a temporary one (TMPDIR), which
                       must be on a disk

ROUNDS   how often each server meets each fault; default 5
FAULTS   of `kill` (kill -9, and a start on the same disk), `power` and `forget` (see below); default the first two
SERVERS  of birthmark, step-ca and openbao; default all
SEED     repeats the moments of the faults; default random, and printed

What is compared. 64 clients ask a new server for one certificate after the other, each for a device of its own, and
wait for the reply. At a random moment, half a second to two seconds later, the fault comes, and all 64 are without an
answer. The server is started again, and its record is read. Then every client that had no answer asks again, with the
same CSR, until its device has a certificate, and the record is read once more.

HELD              certificates that clients had received when the fault came
HELD AND UNKNOWN  those of them which the record does not have, byte for byte, after the start: they are valid, and
                  nobody can revoke them or tell who has them
SIGNATURES IN NO RECORD  signatures that the issuing key made between the start and the fault, by the count of a module
                  between the server and its HSM, less the certificates in the record, less the serial numbers that it
                  holds as given out and never issued. So many certificates, at least, may exist of which it knows
                  nothing. "?" where the key is in the server's memory, so that nothing can count
DEVICES WITH TWO  devices for which two different certificates exist at the end, in the record or with a client
WITHOUT           devices that had no certificate at the end, though their client asked ten times
FAILED STARTS     starts after the fault at which the server was not ready within a minute, or ended; in brackets how
                  many of these were put right, and by what

A power cut is ext4 on a loop device that is shut down without a flush of its journal (EXT4_IOC_SHUTDOWN, NOLOGFLUSH):
nothing more reaches the disk. All threads of the server stop first, so that none of them answers on behalf of a sync
that the cut made void. What the disk has then is copied and mounted elsewhere, and the server is started on the copy.
How long the kernel keeps what is not synced, a second or five minutes (commit=), is drawn by lot. The HSM, which is the
token's folder, is not on that disk. It needs root and a loop device. `forget` is a power cut of a disk that lied about
every sync since the start: no server can help it, and it shows that the columns count what they should.

Each server has its usual settings. Those of step-ca and OpenBao are also the safest that there are for the storage that
they have here: badger syncs each write (SyncWrites), raft each entry of its log, and a role stores what it issues
(no_store=false); speed.py shows the syncs by strace. step-ca can also use PostgreSQL or MySQL, which is not tried. Its
clients take a new one-time token for each try, since a used one is refused.

cfssl (without a database), `openssl x509` in a loop and python-x509-pkcs11 keep no record, so there is nothing to
compare: nobody knows of any certificate of theirs.
"""

import base64
import fcntl
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import time

import programs
from programs import TOOLS, Birthmark, Failed, OpenBao, Program, StepCa, device_of, print_table, run

CLIENTS = 64
SERVERS: dict[str, type[Program]] = {"birthmark": Birthmark, "step-ca": StepCa, "openbao": OpenBao}
FAULTS = {"kill": "kill -9", "power": "power cut", "forget": "disk forgets all"}
USUAL_FAULTS = "kill power"
IMAGE_BYTES = 2 << 30
# From linux/fs/ext4/ext4.h: EXT4_IOC_SHUTDOWN, and EXT4_GOING_FLAGS_NOLOGFLUSH.
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2


def step(text: str) -> None:
    print(f"· {text}", file=sys.stderr, flush=True)


class Disk:
    """A folder that a server writes into, and that may lose its power."""

    def __init__(self, folder: pathlib.Path, fault: str, commit_seconds: int):
        self.folder, self.mounted = folder, []
        self.disk = folder / "disk"
        self.disk.mkdir(parents=True)
        self.data = self.disk / "data"
        self.loses_power, self.forgets = fault != "kill", fault == "forget"
        if self.loses_power:
            image = self.image("image")
            with image.open("wb") as file:
                file.truncate(IMAGE_BYTES)
            run("mkfs.ext4", "-q", "-F", image)
            self.mount(image, self.disk, f"loop,commit={commit_seconds}")

    def image(self, name: str) -> pathlib.Path:
        return self.folder / name

    def mount(self, image: pathlib.Path, at: pathlib.Path, options: str) -> None:
        run("mount", "-o", options, image, at)
        self.mounted.append(at)

    def settle(self) -> None:
        """What was set up long ago is on the disk."""
        run("sync", "-f", self.disk)
        if self.forgets:
            self.copy()

    def copy(self) -> None:
        run("cp", "--sparse=always", self.image("image"), self.image("copy"))

    def fail(self) -> None:
        if self.loses_power:
            descriptor = os.open(self.disk, os.O_RDONLY)
            try:
                fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
            finally:
                os.close(descriptor)

    def after(self) -> pathlib.Path:
        """Where the server finds its data again."""
        if not self.loses_power:
            return self.data
        self.unmount()
        if not self.forgets:
            self.copy()
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        self.mount(self.image("copy"), elsewhere, "loop")
        return elsewhere / "data"

    def unmount(self) -> None:
        while self.mounted:
            run("umount", self.mounted.pop())

    def remove(self) -> None:
        self.unmount()
        for name in ("image", "copy"):
            self.image(name).unlink(missing_ok=True)


def lines_of(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def held(lines: list[dict]) -> list[bytes]:
    return [base64.b64decode(line["certificate"]) for line in lines if line.get("held")]


def start_after(server: Program, data: pathlib.Path) -> tuple[bool, str | None]:
    """Whether the server started by itself, and what had to be done if it did not."""
    try:
        server.start(data)
        return True, None
    except Failed as failed:
        step(str(failed))
        try:
            advice = server.repair()
            if advice:
                server.start(data)
            return False, advice
        except Failed as again:
            step(str(again))
            return False, None


def one_round(server: Program, folder: pathlib.Path, fault: str, moments: random.Random) -> dict:
    disk = Disk(folder, fault, moments.choice([1, 300]))
    client = None
    try:
        server.start(disk.data)
        disk.settle()
        signatures = server.token.signatures() if server.token else None
        first = folder / "first.jsonl"
        ask = [str(TOOLS / "peers"), "ask", *server.client(), "-clients", str(CLIENTS)]
        client = subprocess.Popen([*ask, "-out", str(first)])
        time.sleep(moments.uniform(0.5, 2.0))
        if disk.loses_power:
            server.freeze()
        at = time.time() * 1e3
        disk.fail()
        server.kill()
        if signatures is not None:
            signatures = server.token.signatures() - signatures
        if client.wait() != 0:
            raise Failed("the clients failed")
        before = lines_of(first)
        early = [line["why"] for line in before if line.get("failed") and line["at"] < at - 50]
        if early:
            raise Failed(f"{server.name} refused before the fault: {early[0]}")
        return judge(server, disk, folder, before, signatures)
    finally:
        for process in (client, server.process):
            if process and process.poll() is None:
                process.kill()
                process.wait()
        disk.remove()


def judge(server: Program, disk: Disk, folder: pathlib.Path, before: list[dict], signatures: int | None) -> dict:
    received = held(before)
    asked = {line["asked"] for line in before if line.get("asked")}
    by_itself, repaired = start_after(server, disk.after())
    result = {
        "held": len(received),
        "in_flight": len(asked) - len(received),
        "signatures": signatures,
        "failed_start": int(not by_itself),
        "repaired": repaired,
    }
    if not by_itself and not repaired:
        # Nothing can be looked up any more.
        return result | {
            "unknown": len(received),
            "two": 0,
            "unrecorded": signatures,
            "without": result["in_flight"],
        }
    known, given_out = server.records()
    again = folder / "again.jsonl"
    ask = (TOOLS / "peers", "ask", *server.client(), "-clients", CLIENTS, "-tries", 10)
    run(*ask, "-again", folder / "first.jsonl", "-out", again)
    certificates: dict[str, set[bytes]] = {name: set() for name in asked}
    for certificate in [*known, *server.records()[0], *received, *held(lines_of(again))]:
        certificates.setdefault(device_of(certificate), set()).add(certificate)
    server.stop()
    return result | {
        "recorded": len(known),
        "given_out": given_out,
        "unknown": len(set(received) - set(known)),
        "unrecorded": None if signatures is None else max(signatures - len(known) - given_out, 0),
        "two": sum(len(those) > 1 for those in certificates.values()),
        "without": sum(not those for those in certificates.values()),
    }


HEADINGS = [
    *("WHO", "FAULT", "ROUNDS", "HELD", "IN FLIGHT", "HELD AND UNKNOWN", "SIGNATURES IN NO RECORD", "DEVICES WITH TWO"),
    *("WITHOUT", "FAILED STARTS"),
]


def row(server: Program, fault: str, rounds: list[dict]) -> list[str]:
    def total(name: str) -> str:
        numbers = [each[name] for each in rounds]
        return "?" if None in numbers else f"{sum(numbers):,}"

    repairs = [each["repaired"] for each in rounds if each["repaired"]]
    starts = total("failed_start") + (f" ({len(repairs)}: {repairs[0]})" if repairs else "")
    counts = [total(name) for name in ("held", "in_flight", "unknown", "unrecorded", "two", "without")]
    return [server.name, FAULTS[fault], str(len(rounds)), *counts, starts]


def can_cut_power(folder: pathlib.Path) -> str | None:
    """None, or why not."""
    try:
        Disk(folder, "power", 5).remove()
        return None
    except (Failed, OSError) as failed:
        return str(failed)


def compare(folder: pathlib.Path) -> list[list[str]]:
    rounds = int(os.environ.get("ROUNDS", "5"))
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    faults = os.environ.get("FAULTS", USUAL_FAULTS).split()
    servers = os.environ.get("SERVERS", " ".join(SERVERS)).split()
    for names, known in ((faults, FAULTS), (servers, SERVERS)):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise Failed(f"there is no {unknown[0]}; there are {', '.join(known)}")
    step(f"ROUNDS={rounds} SEED={seed}")
    why_not = None if faults == ["kill"] else can_cut_power(folder / "can-cut-power")
    if why_not:
        if "BIRTHMARK_MUST_MOUNT" in os.environ:
            raise Failed(f"no power can be cut: {why_not}")
        step(f"SKIPPED: no power cuts here, which need root and a loop device: {why_not}")
        faults = [fault for fault in faults if fault == "kill"]
    rows = [HEADINGS]
    moments = random.Random(seed)
    with (folder / "rounds.jsonl").open("a") as log:
        for name in servers:
            server = SERVERS[name](folder / name, counted=True)
            for fault in faults:
                results = []
                for number in range(1, rounds + 1):
                    step(f"{server.name}, {FAULTS[fault]} {number} of {rounds}")
                    result = one_round(server, folder / f"{name}-{fault}-{number}", fault, moments)
                    results.append(result)
                    log.write(json.dumps({"server": name, "fault": fault} | result) + "\n")
                    log.flush()
                rows.append(row(server, fault, results))
    return rows


def show(folder: pathlib.Path) -> None:
    rows = compare(folder)
    print()
    print_table(rows, 2)
    print("\ncfssl, openssl and python-x509-pkcs11 are not here: they keep no record.")


if __name__ == "__main__":
    programs.main(__doc__, show)
