"""CSRs in whatever form tools write them, whole and cut off."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from csrs import csr

from birthmark_station import _der

KEY = ec.generate_private_key(ec.SECP256R1())
PEM = csr("device", KEY).decode()
DER = csr("device", KEY, serialization.Encoding.DER)


def der_of(pem: str) -> bytes:
    """Signatures differ each time, so the DER of this very PEM."""
    return _der.csr_der(pem)


def test_pem_of_every_tool_is_read() -> None:
    whole = der_of(PEM)
    parameters = f"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{PEM}"
    for form in (
        PEM.encode(),
        PEM.replace("\n", "\r\n").encode(),
        PEM.replace("\n", "\n\n").encode(),
        PEM.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST").encode(),
        parameters.encode(),
        b"Gr\xfc\xdfe\n" + PEM.encode(),
        b"\xef\xbb\xbf" + PEM.encode(),
        b"\xff\xfe" + PEM.encode("utf-16-le"),
        b"\xfe\xff" + PEM.encode("utf-16-be"),
        f"Certificate Request:\n    Data:\n{PEM}".encode(),
        PEM,
        whole,
    ):
        assert _der.csr_der(form) == whole


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (PEM[:150].encode(), "before -----END"),
        (DER[:50], "ends before the CSR"),
        (PEM.encode("utf-16-le"), "no PKCS#10"),
        (b"\xff\xfe" + b"\x00\xd8", "UTF-16"),
        (b'{"csr": "-----BEGIN CERTIFICATE REQUEST-----"}', "JSON"),
        (b"-----BEGIN X-----\nAAAA\n-----END X-----\n", "'X'"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\n!\n-----END CERTIFICATE REQUEST-----\n", "base64"),
        (DER + b"\x00", "no PKCS#10"),
        (b"\x30\x80\x00\x00", "no PKCS#10"),
        (b"\x30\x03\x02\x01\x05", "no PKCS#10"),
        (b"\x30\x82\x50\x00" + bytes(0x5000), "at most 16384"),
        (bytes(70000), "longer"),
        ("\udcff", "neither"),
    ],
)
def test_what_is_no_csr_is_named(content: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        _der.csr_der(content)


def test_every_octet_may_be_anything() -> None:
    for at in range(len(DER)):
        for value in (0, 0x30, 0x7F, 0x80, 0x84, 0xFF):
            try:
                _der.csr_der(DER[:at] + bytes([value]) + DER[at + 1 :])
            except ValueError:
                continue


def test_every_beginning_of_a_csr_is_unfinished_and_all_of_it_is_not() -> None:
    marked = b"\xff\xfe" + PEM.encode("utf-16-le")
    text = f"Certificate Request:\n    Data:\n{PEM}".encode()
    for whole in (DER, PEM.encode(), marked, text):
        # The last line may be without its end.
        needed = len(whole) if whole == DER else len(whole.rstrip(b"\n\x00")) - 4
        for cut in range(1, needed):
            assert _der.is_unfinished(whole[:cut]), (cut, whole[:cut])
        assert not _der.is_unfinished(whole)
    assert _der.is_unfinished(DER[:100] + bytes(len(DER) - 100))
    for garbage in (b"no CSR", b"\x30\x03\x02\x01\x05", b'{"device_id": 1}', b"\xff\xd8\xff\xe0"):
        assert not _der.is_unfinished(garbage)
