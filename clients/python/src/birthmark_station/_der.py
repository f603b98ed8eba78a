"""The few fields of CSRs and certificates that a station looks at, and PEM.

On purpose it looks at nothing else: whether a CSR is a good one is the daemon's judgement alone.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Optional, Union

LONGEST_CSR = 16 << 10
"""What the daemon takes, in bytes."""

LONGEST_TEXT = 64 << 10
"""The longest file that is read: the longest CSR as PEM, with whatever text some tools put before it."""

_BEGIN, _END = "-----BEGIN ", "-----END "
_BLOCK = re.compile(r"-----BEGIN ([^\r\n-]*)-----(.*?)-----END \1-----", re.DOTALL)
_LABELS = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
_SEQUENCE = 0x30
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
# Programs that copy files make them as long as they will be first; no CSR ends in this many NULs.
_NOT_COPIED_YET = bytes(16)


def csr_der(csr: Union[bytes, str]) -> bytes:
    """The DER of a CSR that is DER or PEM, perhaps UTF-16 as PowerShell writes it. ValueError with a sentence."""
    content = csr.encode("utf-8", "replace") if isinstance(csr, str) else bytes(csr)
    if len(content) > LONGEST_TEXT:
        raise ValueError(f"the CSR is longer than {LONGEST_TEXT} bytes")
    if not content:
        raise ValueError("the CSR is empty")
    text = csr if isinstance(csr, str) else _text(content)
    if text is not None:
        der = _from_pem(text)
    else:
        der = content
        length = _whole_length(content)
        if length is not None and length > len(content):
            raise ValueError(f"it ends before the CSR in it does, at {len(content)} of {length} bytes")
    if len(der) > LONGEST_CSR:
        raise ValueError(f"the CSR has {len(der)} bytes; at most {LONGEST_CSR} are allowed")
    csr_key(der)
    return der


def is_unfinished(content: bytes) -> bool:
    """Whether somebody has begun to write a CSR and has not come to its end."""
    if len(content) < 4 or content.endswith(_NOT_COPIED_YET) or content.isspace():
        return True
    try:
        text = _text(content)
    except ValueError:
        # UTF-16 that was cut within a character.
        return len(content) % 2 == 1
    if text is not None:
        begin, end = text.rfind(_BEGIN), text.rfind(_END)
        if begin < 0:
            return True
        return end < begin or "-----" not in text[end + len(_END) :]
    if content[0] == _SEQUENCE:
        length = _whole_length(content)
        return length is None or length > len(content)
    # The text that OpenSSL puts before the PEM, or the beginning of the first line.
    start = content.lstrip()
    begins = (b"Certificate Request:", _BEGIN.encode())
    return start.startswith(begins[0]) or any(begin.startswith(start) for begin in begins)


def csr_key(der: bytes) -> bytes:
    """The DER SubjectPublicKeyInfo of a DER CertificationRequest (RFC 2986 section 4)."""
    try:
        # version, subject, subjectPKInfo, attributes
        return _fields(der)[2]
    except (ValueError, IndexError):
        raise ValueError(f"{len(der)} bytes that are no PKCS#10 CSR, neither PEM nor DER") from None


def certificate_key(der: bytes) -> bytes:
    """The DER SubjectPublicKeyInfo of a DER Certificate (RFC 5280 section 4.1)."""
    return _certificate_field(der, 6)


def serial_number(der: bytes) -> bytes:
    """The content octets of the serial number of a DER Certificate."""
    start, end = _header(_certificate_field(der, 1), 0)
    return _certificate_field(der, 1)[start:end]


def is_self_issued(der: bytes) -> bool:
    """Whether a DER Certificate names itself as its issuer, as a root does."""
    try:
        return _certificate_field(der, 3) == _certificate_field(der, 5)
    except ValueError:
        return False


def first_certificate(text: bytes) -> Optional[bytes]:
    """The DER of the first block of a PEM text, if it is a certificate."""
    block = _BLOCK.search(_text(text) or "") if len(text) <= 1 << 20 else None
    if block is None or block[1] != "CERTIFICATE":
        return None
    try:
        return base64.b64decode("".join(block[2].split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def _certificate_field(der: bytes, index: int) -> bytes:
    try:
        # version, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo, extensions
        return _fields(der)[index]
    except (ValueError, IndexError):
        raise ValueError(f"{len(der)} bytes that are no certificate") from None


def _text(content: bytes) -> Optional[str]:
    """The content as text, if it is PEM or says that it is text."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            try:
                return content[len(mark) :].decode(encoding)
            except UnicodeDecodeError:
                raise ValueError(f"it is no CSR: not {encoding.upper()} although it begins so") from None
    if b"-----BEGIN " in content:
        # Text that some tools put before the PEM may be in any encoding.
        return content.decode("latin-1")
    return None


def _from_pem(text: str) -> bytes:
    if text.lstrip().startswith("{"):
        raise ValueError("it looks like JSON, not like a CSR")
    labels = []
    for block in _BLOCK.finditer(text):
        if block[1] in _LABELS:
            try:
                return base64.b64decode("".join(block[2].split()), validate=True)
            except (binascii.Error, ValueError):
                raise ValueError("what is between BEGIN and END is not base64") from None
        labels.append(block[1])
    if labels:
        raise ValueError(f"the PEM holds no certificate request but {labels[0][:40]!r}")
    if _BEGIN in text:
        raise ValueError("it ends before -----END")
    raise ValueError("it is no CSR, neither PEM nor DER")


def _fields(signed: bytes) -> list[bytes]:
    """The fields of the signed inner SEQUENCE of a CSR or certificate, each with tag and length."""
    start, end = _header(signed, 0, _SEQUENCE)
    if end != len(signed):
        raise ValueError("not one DER value")
    start, end = _header(signed, start, _SEQUENCE)
    fields = []
    while start < end:
        after = _header(signed, start)[1]
        fields.append(signed[start:after])
        start = after
    if start != end:
        raise ValueError("a field ends after what holds it")
    return fields


def _header(der: bytes, at: int, tag: Optional[int] = None) -> tuple[int, int]:
    """Where the content of the value at ``at`` begins and ends. ValueError."""
    if at + 2 > len(der) or (tag is not None and der[at] != tag):
        raise ValueError("not DER")
    length, start = der[at + 1], at + 2
    if length >= 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4 or start + count > len(der):
            raise ValueError("not DER")
        length, start = int.from_bytes(der[start : start + count], "big"), start + count
    if start + length > len(der):
        raise ValueError("cut off")
    return start, start + length


def _whole_length(content: bytes) -> Optional[int]:
    """The length of the DER value at the beginning, header included; none if the header is not whole, 0 if not DER."""
    if len(content) < 2:
        return None
    first = content[1]
    if first < 0x80:
        return 2 + first
    if not 0x81 <= first <= 0x84:
        return 0
    count = first & 0x7F
    if len(content) < 2 + count:
        return None
    return 2 + count + int.from_bytes(content[2 : 2 + count], "big")
