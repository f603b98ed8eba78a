"""A station in Python, generated from proto/: asks for the issuers, then for a certificate for each CSR.

    client.py --server HOST:PORT --identity DIR --order ORDER --profile PROFILE CSR…

Prints GetIssuer's answer and then each reply, in the order of arrival, as one JSON object a line:

    {"issuers": [{"name", "chain": [hex SHA-256…]}], "profiles": [{"name", "issuer", "key_types"}]}
    {"request_id", "device_id", "certificate_id", "serial_number", "issuer", "replay"}
    {"request_id", "device_id", "code", "reason", "message", "retry_delay"}

The device id of a CSR is its file's name without the extension. Exits 0 if every CSR was answered, also by errors
(1 with --strict), and 2 if the stream or GetIssuer failed or an answer is missing.
"""

import argparse
import hashlib
import json
import queue
import sys
import tempfile
from importlib import resources
from pathlib import Path

import grpc
from google.rpc import code_pb2, error_details_pb2
from grpc_tools import protoc

from identity import connect

PROTO = Path(__file__).resolve().parents[2] / "proto"


def generate(folder: str):
    """Generates the client into `folder`. google/rpc/status.proto is googleapis-common-protos' own."""
    arguments = ["protoc", f"-I{PROTO}", f"-I{resources.files('grpc_tools') / '_proto'}"]
    arguments += [f"--python_out={folder}", f"--grpc_python_out={folder}", "birthmark/v1/issuance.proto"]
    if protoc.main(arguments) != 0:
        sys.exit("client.py: protoc failed")
    sys.path.insert(0, folder)
    from birthmark.v1 import issuance_pb2, issuance_pb2_grpc

    return issuance_pb2, issuance_pb2_grpc


def error(status) -> dict:
    """A google.rpc.Status as JSON: its code by name, ErrorInfo's reason, RetryInfo's delay in seconds."""
    answer = {"code": code_pb2.Code.Name(status.code), "reason": None, "message": status.message, "retry_delay": None}
    for detail in status.details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == "birthmark":
            answer["reason"] = info.reason
        elif detail.Unpack(retry):
            answer["retry_delay"] = retry.retry_delay.ToTimedelta().total_seconds()
    return answer


def requests(csrs: dict, make, window: queue.Queue):
    for request_id, path in csrs.items():
        window.put(None)
        yield make(request_id, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, metavar="HOST:PORT")
    parser.add_argument("--identity", required=True, type=Path, metavar="DIR", help="cert.pem, key.pem, ca.pem")
    parser.add_argument("--order", required=True)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write each certificate there, as DEVICE.der")
    parser.add_argument("--window", type=int, default=64, help="requests in flight (64)")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for all of it (60)")
    parser.add_argument("--strict", action="store_true", help="exit 1 if any reply is an error")
    parser.add_argument("csr", nargs="+", type=Path, metavar="CSR")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        messages, services = generate(folder)
        channel = connect(arguments.server, arguments.identity)
        stub = services.IssuanceStub(channel)
        unanswered = {f"{number}-{path.stem}"[:64]: path for number, path in enumerate(arguments.csr)}

        def request(request_id: str, path: Path):
            return messages.IssueRequest(
                request_id=request_id,
                device_id=path.stem,
                order=arguments.order,
                profile=arguments.profile,
                csr=path.read_bytes(),
            )

        failed = False
        try:
            known = stub.GetIssuer(messages.GetIssuerRequest(), timeout=arguments.timeout)
            issuers = [
                {"name": issuer.name, "chain": [hashlib.sha256(der).hexdigest() for der in issuer.chain]}
                for issuer in known.issuers
            ]
            profiles = [
                {"name": profile.name, "issuer": profile.issuer, "key_types": list(profile.key_types)}
                for profile in known.profiles
            ]
            print(json.dumps({"issuers": issuers, "profiles": profiles}), flush=True)

            window: queue.Queue = queue.Queue(arguments.window)
            sent = requests(dict(unanswered), request, window)
            for reply in stub.Issue(sent, timeout=arguments.timeout):
                window.get_nowait()
                path = unanswered.pop(reply.request_id)
                answer = {"request_id": reply.request_id, "device_id": path.stem}
                if reply.WhichOneof("result") == "issued":
                    issued = reply.issued
                    if hashlib.sha256(issued.certificate).hexdigest() != issued.certificate_id:
                        sys.exit(f"client.py: {path}: certificate_id is not the certificate's SHA-256")
                    answer |= {"certificate_id": issued.certificate_id, "serial_number": issued.serial_number.hex()}
                    answer |= {"issuer": issued.issuer, "replay": issued.replay}
                    if arguments.out:
                        (arguments.out / f"{path.stem}.der").write_bytes(issued.certificate)
                else:
                    failed = True
                    answer |= error(reply.error)
                print(json.dumps(answer), flush=True)
        except grpc.RpcError as failure:
            print(f"client.py: {failure.code().name}: {failure.details()}", file=sys.stderr)
            return 2
    if unanswered:
        print(f"client.py: not answered: {', '.join(unanswered)}", file=sys.stderr)
        return 2
    return 1 if failed and arguments.strict else 0


if __name__ == "__main__":
    sys.exit(main())
