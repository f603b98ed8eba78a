"""An OpenHTF test with a phase that gives the device its identity.

    python examples/openhtf_stand.py SN-0001 lot-42

The daemon and this stand's identity come from BIRTHMARK_SERVER and BIRTHMARK_IDENTITY.
"""

from __future__ import annotations

import subprocess
import sys

import openhtf as htf
from openhtf.plugs import BasePlug

from birthmark_station import Refused, Station, Unavailable


class BirthmarkPlug(BasePlug):  # type: ignore[misc]
    """The connection to the daemon; it connects again by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.station = Station()

    def tearDown(self) -> None:
        self.station.close()


def read_csr(serial_number: str) -> bytes:
    """The device makes a key and a CSR for it. Here openssl does; put what speaks with your device in its place."""
    command = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", "-", "-subj", f"/CN={serial_number}"]
    return subprocess.run(command, check=True, capture_output=True).stdout


@htf.measures(  # type: ignore[untyped-decorator]
    htf.Measurement("certificate_id").doc("SHA-256 of the certificate"),
    htf.Measurement("refused").equals("").doc("why the device got none"),
)
@htf.plug(birthmark=BirthmarkPlug)  # type: ignore[untyped-decorator]
def give_identity(test: htf.TestApi, birthmark: BirthmarkPlug) -> htf.PhaseResult | None:
    """A device that is refused fails; a daemon that is away is no fault of the device, and the phase is repeated."""
    serial_number = test.test_record.dut_id
    csr = test.state.setdefault("csr", read_csr(serial_number))
    try:
        certificate = birthmark.station.issue(
            serial_number, csr, profile="device", order=test.state["order"], timeout=30
        )
    except Unavailable as error:
        test.logger.warning("%s", error)
        return htf.PhaseResult.REPEAT
    except Refused as error:
        test.measurements.refused = error.reason
        return None
    # Write certificate.chain_pem to the device here, read it back, and only then:
    birthmark.station.confirm(certificate)
    test.measurements.certificate_id = certificate.certificate_id
    test.measurements.refused = ""
    return None


def main(serial_number: str, order: str) -> int:
    """Tests one device."""

    @htf.PhaseOptions(name="order")  # type: ignore[untyped-decorator]
    def set_order(test: htf.TestApi) -> None:
        test.state["order"] = order

    test = htf.Test(set_order, give_identity, test_name="identity")
    return 0 if test.execute(test_start=lambda: serial_number) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
