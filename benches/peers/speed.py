#!/usr/bin/env python3
"""Measures birthmark and its peers one after the other, on this machine and with the same CSRs, and prints one table.

  speed.py [FOLDER]     FOLDER: a new one for the CSRs and each program's result; default: a temporary one (TMPDIR),
                        which must be on a disk

BIRTHMARK     the program; default target/release/birthmark
SECONDS_EACH  how long each is measured, after two seconds of warming up; default 10
CONNECTIONS   how many connections the peers' load generator has, each with one request open; default 16
PEERS         which of the peers: step-ca, openbao, cfssl, python-x509-pkcs11, openssl; default all

All sign the same CSRs with a P-256 CA key. What differs is in the table's second and third column, and each peer has it
as easy as it can be: cfssl, openssl and python-x509-pkcs11 store nothing; cfssl, openssl and OpenBao have their key in
memory instead of an HSM (OpenBao's plugin for PKCS#11 is not tried); cfssl and OpenBao speak plain HTTP;
python-x509-pkcs11 checks no proof of possession; step-ca takes one-time tokens, which are made before. Servers are
asked by a client in C (wrk), birthmark by the stations of `birthmark bench`, over mutual TLS, with 4 times 64 requests
open and with as many as the peers have.

SYNCS is how often a server that has one request at a time tells the kernel to put something on stable storage, by
request, as strace sees it: fsync, fdatasync, msync, sync_file_range, syncfs, and writes to files that are opened with
O_DSYNC or O_SYNC. CPU is the server's user and system time a certificate, CLIENT the load generator's. OTHERS is what
all other programs, and the kernel on its own, took of all processors meanwhile: it should be next to nothing, or the
run means little; of birthmark it is counted over the whole run of `bench`, the preparation included. A reply counts
only if it has a certificate; one in a hundred, at most 200, is verified by openssl, and must have its CSR's key.
"""

import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time

import programs
from programs import BIRTHMARK, TOOLS, Failed, OpenBao, Program, StepCa, free_port, print_table, run

HERE = pathlib.Path(__file__).resolve().parent
SECONDS = int(os.environ.get("SECONDS_EACH", "10"))
CONNECTIONS = int(os.environ.get("CONNECTIONS", "16"))
WARM_UP = 2
# More than any server with one-time tokens reaches; made before, some 2 KB each.
TOKENS_PER_SECOND = 8000
PROBES = 100
PROCESSORS = os.cpu_count() or 1
TICKS = os.sysconf("SC_CLK_TCK")
SYNCS = ("fsync", "fdatasync", "msync", "sync_file_range", "syncfs")


def step(text: str) -> None:
    print(f"· {text}", file=sys.stderr, flush=True)


class Clock:
    """What the machine, this process' children and a server have used of the processors since it was made."""

    def __init__(self, server: int | None = None):
        self.server = server
        self.began, self.before = time.monotonic(), self.read()

    def read(self) -> tuple[float, float, float]:
        # proc(5): user, nice, system, idle, iowait, irq, softirq, steal; the last two count under the first two.
        numbers = [int(word) for word in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy = (sum(numbers) - numbers[3] - numbers[4]) / TICKS
        used = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
        ours = sum(usage.ru_utime + usage.ru_stime for usage in used)
        server = 0.0
        if self.server:
            fields = pathlib.Path(f"/proc/{self.server}/stat").read_text().rpartition(") ")[2].split()
            server = (int(fields[11]) + int(fields[12])) / TICKS
        return busy, ours, server

    def stop(self) -> dict:
        busy, ours, server = (after - before for after, before in zip(self.read(), self.before, strict=True))
        elapsed = time.monotonic() - self.began
        others = max(busy - ours - server, 0) / (elapsed * PROCESSORS)
        return {"cpu_seconds": server, "client_cpu_seconds": ours, "others": others}


def birthmark(folder: pathlib.Path, name: str, *arguments: str) -> dict:
    clock = Clock()
    result = json.loads(run(BIRTHMARK, "bench", "--json", "--seconds", SECONDS, *arguments))
    used = clock.stop()
    (folder / f"{name}.json").write_text(json.dumps(result))
    certificates = result["certificates"]
    return {
        "certificates": certificates,
        "seconds": result["seconds"],
        "cpu_seconds": result["daemon_cpu_us_per_certificate"] * certificates / 1e6,
        "client_cpu_seconds": result["stations_cpu_us_per_certificate"] * certificates / 1e6,
        "others": used["others"],
        "p50_ms": result["latency_ms"]["p50"],
        "p99_ms": result["latency_ms"]["p99"],
    }


def wrk(folder: pathlib.Path, server: int, url: str, path: str, bodies: pathlib.Path, once: bool, *header: str) -> dict:
    def load(seconds: int, bodies: pathlib.Path) -> dict:
        options = ("--threads", 1, "--connections", CONNECTIONS, "--duration", f"{seconds}s", "--timeout", "30s")
        use = "once" if once else "round"
        sample = folder / "sample"
        said = run("wrk", *options, "--script", HERE / "load.lua", url, "--", bodies, path, use, sample, *header)
        found = re.search(r"^RESULT (.*)$", said, re.MULTILINE)
        if not found:
            raise Failed(f"wrk gave no result: {said}")
        return json.loads(found[1])

    if once:
        # Split, since none may be used a second time.
        first = folder / "first"
        with bodies.open() as lines, first.open("w") as out, (folder / "rest").open("w") as rest:
            for number, line in enumerate(lines):
                (out if number < WARM_UP * TOKENS_PER_SECOND else rest).write(line)
        bodies = folder / "rest"
    load(WARM_UP, first if once else bodies)
    clock = Clock(server)
    result = load(SECONDS, bodies)
    result |= clock.stop()
    if result["used_up"]:
        raise Failed("the one-time tokens were used up; raise TOKENS_PER_SECOND")
    if result["failed"] or not result["certificates"]:
        raise Failed(f"{result['failed']} of the requests failed; the first: {result['first_bad']}")
    return result


def judge(folder: pathlib.Path, root: pathlib.Path, issuing: pathlib.Path, csrs: list[str]) -> int:
    """Verifies the sampled certificates; gives how many there were."""
    keys = {}
    for path in csrs:
        device = pathlib.Path(path).stem
        keys[device] = path
    replies = (folder / "sample").read_text().splitlines()
    if not replies:
        raise Failed("no reply was kept for a look at it")
    certificate = folder / "certificate.pem"
    for reply in map(json.loads, replies[:200]):
        # As step-ca, OpenBao and cfssl name it.
        certificate.write_text(reply.get("crt") or (reply.get("data") or reply.get("result"))["certificate"])
        run("openssl", "verify", "-CAfile", root, "-untrusted", issuing, certificate)
        subject = run("openssl", "x509", "-in", certificate, "-noout", "-subject", "-nameopt", "multiline")
        device = re.search(r"commonName *= (.*)", subject)[1]
        of_csr = run("openssl", "req", "-in", keys[device], "-noout", "-pubkey")
        if run("openssl", "x509", "-in", certificate, "-noout", "-pubkey") != of_csr:
            raise Failed(f"the certificate of {device} has another key than its CSR")
    return min(len(replies), 200)


def syncs(program: Program, folder: pathlib.Path) -> str:
    """How often it syncs for each request, one at a time."""
    through = written_through(program.process.pid)
    calls = folder / "strace"
    trace = f"trace={','.join(SYNCS)},write,writev,pwrite64,pwritev"
    command = ["strace", "-f", "-q", "-s", "0", "-e", trace, "-e", "signal=none", "-o", str(calls), "-p"]
    tracer = subprocess.Popen([*command, str(program.process.pid)], stderr=subprocess.PIPE, text=True)
    # When it is traced, its tracer is in its status.
    status = pathlib.Path(f"/proc/{program.process.pid}/status")
    end = time.monotonic() + 20
    while re.search(r"TracerPid:\t0$", status.read_text(), re.MULTILINE):
        if tracer.poll() is not None or time.monotonic() > end:
            tracer.kill()
            raise Failed(f"strace cannot attach: {tracer.communicate()[1]}")
        time.sleep(0.05)
    # And then its other threads.
    time.sleep(0.5)
    try:
        ask = (TOOLS / "peers", "ask", *program.client(), "-clients", 1, "-count", PROBES, "-out", folder / "probes")
        run(*ask)
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
    numbers: dict[str, int] = {}
    for name, descriptor in re.findall(r"^\d+ +(\w+)\((\d*)", calls.read_text(), re.MULTILINE):
        if name in SYNCS:
            numbers[name] = numbers.get(name, 0) + 1
        elif descriptor in through:
            numbers["O_DSYNC write"] = numbers.get("O_DSYNC write", 0) + 1
    return ", ".join(f"{number / PROBES:.1f} {name}" for name, number in sorted(numbers.items())) or "none"


def written_through(process: int) -> set[str]:
    """The descriptors whose every write is on stable storage when it returns."""
    through = set()
    for descriptor in pathlib.Path(f"/proc/{process}/fdinfo").iterdir():
        try:
            flags = re.search(r"flags:\t(\d+)", descriptor.read_text())
        except FileNotFoundError:
            continue
        # O_SYNC includes it.
        if flags and int(flags[1], 8) & os.O_DSYNC:
            through.add(descriptor.name)
    return through


def with_store(kind: type[Program], folder: pathlib.Path, csrs: pathlib.Path) -> dict:
    """One of the servers that keep a record."""
    program = kind(folder)
    program.start(folder / "data")
    try:
        said = syncs(program, folder)
        if kind is programs.Birthmark:
            return {"syncs": said}
        bodies = folder / "bodies"
        header = ()
        if kind is StepCa:
            endpoint = "/1.0/sign"
            number = (WARM_UP + SECONDS) * TOKENS_PER_SECOND
            tokens = [TOOLS / "peers", "tokens", "-key", folder / "provisioner.pem", "-csrs", csrs]
            tokens += ["-audience", program.url + endpoint, "-number", number]
            with bodies.open("w") as out:
                subprocess.run([str(word) for word in tokens], stdout=out, check=True)
        else:
            endpoint = "/v1/pki/sign/device"
            header = ("X-Vault-Token", program.secrets["root_token"])
            with bodies.open("w") as out:
                for path in csrs.read_text().split():
                    out.write(json.dumps({"csr": pathlib.Path(path).read_text()}) + "\n")
        result = wrk(folder, program.process.pid, program.url, endpoint, bodies, kind is StepCa, *header)
        result["judged"] = judge(folder, program.root, program.issuing, csrs.read_text().split())
        return result | {"syncs": said}
    finally:
        program.stop()


def cfssl(folder: pathlib.Path, csrs: pathlib.Path) -> dict:
    program = Program(folder)
    program.name = "cfssl"
    programs.make_authority(folder)
    signing = {"signing": {"default": {"usages": ["digital signature", "client auth"], "expiry": "80000h"}}}
    (folder / "config.json").write_text(json.dumps(signing))
    port = free_port()
    key = ("-ca", "issuing.pem", "-ca-key", "issuing-key.pem", "-config", "config.json")
    program.spawn("cfssl", "serve", "-address", "127.0.0.1", "-port", port, *key, "-loglevel", "4")
    program.wait_until(lambda: listens(port))
    bodies = folder / "bodies"
    with bodies.open("w") as out:
        for path in csrs.read_text().split():
            out.write(json.dumps({"certificate_request": pathlib.Path(path).read_text()}) + "\n")
    try:
        url = f"http://127.0.0.1:{port}"
        result = wrk(folder, program.process.pid, url, "/api/v1/cfssl/sign", bodies, False)
        result["judged"] = judge(folder, folder / "root.pem", folder / "issuing.pem", csrs.read_text().split())
        return result
    finally:
        program.stop()


def listens(port: int) -> bool:
    return subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{port}/"], check=False).returncode == 0


def python_x509(folder: pathlib.Path, csrs: pathlib.Path) -> dict:
    folder.mkdir()
    token = programs.Token(folder / "hsm", "peer", counted=False)
    environment = token.environment | {
        "PKCS11_MODULE": token.module,
        "PKCS11_TOKEN": "peer",
        "PKCS11_PIN": (folder / "hsm/pin").read_text().strip(),
    }
    paths = csrs.read_text().split()[:2000]
    clock = Clock()
    said = run(TOOLS / "venv/bin/python", HERE / "python_x509.py", SECONDS, *paths, env=os.environ | environment)
    # It is its own client.
    return json.loads(said.splitlines()[-1]) | {"others": clock.stop()["others"]}


def openssl(folder: pathlib.Path, csrs: pathlib.Path) -> dict:
    folder.mkdir()
    programs.make_authority(folder)
    clock, began, times = Clock(), time.monotonic(), []
    for number, path in enumerate(csrs.read_text().split(), 1):
        before = time.monotonic()
        key = ("-CA", "issuing.pem", "-CAkey", "issuing-key.pem", "-days", 7000, "-set_serial", number)
        run("openssl", "x509", "-req", "-in", path, *key, "-out", "certificate.pem", cwd=folder)
        times.append((time.monotonic() - before) * 1e3)
        if time.monotonic() - began >= SECONDS:
            break
    elapsed, used = time.monotonic() - began, clock.stop()
    times.sort()
    p50, p99 = (times[int(len(times) * share)] for share in (0.5, 0.99))
    return {
        **{"certificates": len(times), "seconds": elapsed, "cpu_seconds": used["client_cpu_seconds"]},
        **{"others": used["others"], "p50_ms": p50, "p99_ms": p99},
    }


HEADINGS = ["WHO", "KEY; WHAT IT KEEPS", "SYNCS A REQUEST", "OPEN", "CERTIFICATES/S", "CPU µs", "CLIENT µs"]
HEADINGS += ["P50 ms", "P99 ms", "OTHERS", "BIRTHMARK IS"]


def row(title: str, keeps: str, opened: int, result: dict, ours: float) -> list[str]:
    rate = result["certificates"] / result["seconds"]

    def each(name: str) -> str:
        return f"{result[name] / result['certificates'] * 1e6:,.0f}" if result.get(name) else "-"

    used = [each("cpu_seconds"), each("client_cpu_seconds")]
    times = [f"{result['p50_ms']:.2f}", f"{result['p99_ms']:.2f}", f"{result['others']:.0%}", f"{ours / rate:.2f} x"]
    return [title, keeps, result.get("syncs", "-"), str(opened), f"{rate:,.0f}", *used, *times]


PEERS = {
    "step-ca": ("step-ca", StepCa.keeps, lambda folder, csrs: with_store(StepCa, folder, csrs), CONNECTIONS),
    "openbao": ("OpenBao", OpenBao.keeps, lambda folder, csrs: with_store(OpenBao, folder, csrs), CONNECTIONS),
    "cfssl": ("cfssl serve", "software key; nothing", cfssl, CONNECTIONS),
    "python-x509-pkcs11": ("python-x509-pkcs11", "SoftHSM; nothing", python_x509, 1),
    "openssl": ("openssl x509 -req, a loop", "software key; nothing", openssl, 1),
}


def measure(folder: pathlib.Path) -> None:
    wanted = os.environ.get("PEERS", " ".join(PEERS)).split()
    unknown = [name for name in wanted if name not in PEERS]
    if unknown:
        raise Failed(f"there is no {unknown[0]}; there are {', '.join(PEERS)}")
    step("birthmark: 4 stations, 64 requests open each")
    ours = birthmark(folder, "birthmark", "--csrs-out", str(folder / "csrs"))
    csrs = folder / "csrs.list"
    csrs.write_text("\n".join(sorted(str(path) for path in (folder / "csrs").glob("*.pem"))) + "\n")
    results = []
    for name in wanted:
        title, keeps, peer, opened = PEERS[name]
        step(f"{title}: {opened} open")
        result = peer(folder / name, csrs)
        (folder / f"{name}.json").write_text(json.dumps(result))
        results.append((title, keeps, opened, result))
    each = max(CONNECTIONS // 4, 1)
    step(f"birthmark: 4 stations, {each} requests open each")
    few = birthmark(folder, "birthmark-few", "--window", str(each))
    said = with_store(programs.Birthmark, folder / "birthmark", csrs)
    rate = ours["certificates"] / ours["seconds"]
    rows = [HEADINGS]
    for opened, result in ((256, ours), (4 * each, few)):
        rows.append(row("birthmark", programs.Birthmark.keeps, opened, result | said, rate))
    rows += [row(title, keeps, opened, result, rate) for title, keeps, opened, result in results]
    print()
    print_table(rows, 3)


if __name__ == "__main__":
    programs.main(__doc__, measure)
