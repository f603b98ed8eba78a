"""Both clients against the real daemon on SoftHSM, with kills and holds in between."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from csrs import csr, csrs, fresh, weak_csr
from site_of_tests import Site, wait_until

from birthmark_station import (
    BirthmarkError,
    DeadlineExceeded,
    Identity,
    NotAllowed,
    Progress,
    Refused,
    Request,
    Result,
    SettingsError,
    Station,
    TlsError,
    Unavailable,
)

Connect = Callable[..., Any]


def certificates(results: Iterator[Result]) -> dict[str, bytes]:
    """By device; every device once, none refused."""
    found: dict[str, bytes] = {}
    for result in results:
        assert result.device_id not in found
        found[result.device_id] = result.unwrap().der
    return found


def test_certificate_answers_its_csr_and_a_retry_is_identical(site: Site, station: Any) -> None:
    order, device = site.order(10), fresh("single")
    asked = csr(device)
    first = station.issue(device, asked, profile="device", order=order)
    again = station.issue(device, asked, order=order)  # It is the order's profile.
    assert not first.replay and again.replay and again.der == first.der
    parsed = x509.load_pem_x509_certificate(first.pem.encode())
    public = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    asked_key = x509.load_pem_x509_csr(asked).public_key().public_bytes(*public)
    assert parsed.public_key().public_bytes(*public) == asked_key
    assert parsed.serial_number == int.from_bytes(first.serial_number, "big")
    # As a device presents it: its own certificate and the issuing CA's, not the root's.
    chain = x509.load_pem_x509_certificates(first.chain_pem.encode())
    assert chain[0] == parsed and len(chain) == 2
    parsed.verify_directly_issued_by(chain[1])
    assert len(site.records(order)) == 1


def test_der_and_pem_text_are_the_same_request(site: Site, station: Any) -> None:
    order, device = site.order(1), fresh("forms")
    key = ec.generate_private_key(ec.SECP256R1())
    der, pem = csr(device, key, serialization.Encoding.DER), csr(device, key).decode()
    results = [
        station.issue(device, form, profile="device", order=order)
        for form in (der, pem, b"\xff\xfe" + pem.encode("utf-16-le"))
    ]
    assert len({result.der for result in results}) == 1


@pytest.mark.parametrize("how", ["killed", "drained"])
def test_every_device_has_one_certificate_when_the_daemon_ends_midway(site: Site, station: Any, how: str) -> None:
    order, devices = site.order(300), csrs(how, 300)
    seen: list[Progress] = []
    found: dict[str, bytes] = {}
    ends = {1, 120, 250}
    threads: list[threading.Thread] = []
    for result in station.issue_many(iter(devices), profile="device", order=order, progress=seen.append):
        assert result.device_id not in found, "a device was answered twice"
        found[result.device_id] = result.unwrap().der
        if len(found) in ends:
            for thread in threads:
                thread.join()
            (site.kill if how == "killed" else site.end)()
            threads.append(threading.Thread(target=site.start))
            threads[-1].start()
    for thread in threads:
        thread.join()
    assert found.keys() == {device for device, _ in devices}
    assert any(progress.waiting for progress in seen) and seen[-1].waiting is None
    assert seen[-1].issued + seen[-1].replayed == 300 and seen[-1].unanswered == 0
    # The ledger has each once, and gives each again.
    live = [record for record in site.records(order) if record["certificate_id"]]
    assert sorted(record["device_id"] for record in live) == sorted(found)
    assert certificates(station.issue_many(devices, profile="device", order=order)) == found


def test_refused_devices_end_nothing(site: Site, station: Any) -> None:
    order, owner, good = site.order(10), fresh("owner"), fresh("good")
    key = ec.generate_private_key(ec.SECP256R1())
    bad_proof = bytearray(csr("bad-proof", encoding=serialization.Encoding.DER))
    bad_proof[-1] ^= 1
    first = station.issue(owner, csr(owner, key), profile="device", order=order)
    asked = [
        Request("thief", csr("thief", key)),
        Request(owner, csr(owner)),
        Request("weak", weak_csr("weak")),
        Request("bad-proof", bytes(bad_proof)),
        Request("no id", csr("x")),
        Request("garbage", b"garbage"),
        Request("empty", b""),
        Request("huge", b"\x30\x84\x00\x10\x00\x00" + bytes(1 << 20)),
        Request("unknown-profile", csr("x"), profile="nonesuch"),
        Request("unknown-order", csr("x"), order="nonesuch"),
        Request(good, csr(good)),
    ]
    results = {result.device_id: result for result in station.issue_many(asked, profile="device", order=order)}
    assert len(results) == len({request.device_id for request in asked})
    reasons = {device: (result.error.reason, result.error.code) for device, result in results.items() if result.error}
    assert reasons == {
        "thief": ("KEY_REUSED", "ALREADY_EXISTS"),
        owner: ("DEVICE_HAS_CERTIFICATE", "ALREADY_EXISTS"),
        "weak": ("KEY_WEAK", "INVALID_ARGUMENT"),
        "bad-proof": ("POP_INVALID", "INVALID_ARGUMENT"),
        "no id": ("REQUEST_INVALID", ""),
        "garbage": ("CSR_MALFORMED", ""),
        "empty": ("CSR_MALFORMED", ""),
        "huge": ("CSR_MALFORMED", ""),
        "unknown-profile": ("PROFILE_UNKNOWN", "NOT_FOUND"),
        "unknown-order": ("ORDER_UNKNOWN", "NOT_FOUND"),
    }
    assert results[good].unwrap() and not first.replay
    with pytest.raises(Refused) as refused:
        station.issue("weak", weak_csr("weak"), profile="device", order=order)
    assert refused.value.reason == "KEY_WEAK" and not refused.value.retryable and refused.value.message


def test_order_is_never_exceeded_and_says_so(site: Site, station: Any) -> None:
    order = site.order(5)
    results = list(station.issue_many(csrs("over", 12), profile="device", order=order))
    refused = [result.error for result in results if result.error is not None]
    assert len(refused) == 7 and {error.code for error in refused} == {"RESOURCE_EXHAUSTED"}
    assert len(site.records(order)) == 5


def test_reissue_gives_a_new_certificate_for_a_new_key(site: Site, station: Any) -> None:
    order = site.order(5)
    device = fresh("repaired")
    first = station.issue(device, csr(device), profile="device", order=order)
    site.birthmark("record", "revoke", first.serial, "--reason", "keyCompromise")
    new = csr(device)
    with pytest.raises(Refused) as refused:
        station.issue(device, new, profile="device", order=order)
    assert refused.value.code == "FAILED_PRECONDITION"
    second = station.issue(device, new, profile="device", order=order, reissue=True)
    assert second.serial != first.serial
    with pytest.raises(Refused):
        station.confirm(first)


def test_deadline_ends_a_call_and_asking_again_is_free(site: Site, station: Any) -> None:
    order = site.order(10)
    device = fresh("late")
    asked = csr(device)
    with pytest.raises(DeadlineExceeded) as none:
        station.issue(device, asked, profile="device", order=order, timeout=0)
    assert none.value.retryable
    station.access()
    site.hold()
    try:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded) as late:
            station.issue(device, asked, profile="device", order=order, timeout=1.0)
        assert 0.9 < time.monotonic() - begun < 5
        assert late.value.unanswered == (device,) and "1 s" in str(late.value)
        with pytest.raises(Unavailable) as silent:
            list(station.issue_many([(device, asked)], profile="device", order=order, give_up_after=0.5))
        assert silent.value.unanswered == (device,) and silent.value.retryable
        with pytest.raises(DeadlineExceeded):
            station.confirm("00" * 20, timeout=0.5)
    finally:
        site.resume()
    certificate = station.issue(device, asked, profile="device", order=order)
    assert certificate.der == station.issue(device, asked, profile="device", order=order).der
    assert len(site.records(order)) == 1


def test_slow_daemon_is_waited_for(site: Site, station: Any) -> None:
    order, devices = site.order(150), csrs("slow", 150)
    over = threading.Event()

    def brake() -> None:
        while not over.is_set():
            site.hold()
            time.sleep(0.3)
            site.resume()
            over.wait(0.05)

    thread = threading.Thread(target=brake)
    thread.start()
    try:
        found = certificates(station.issue_many(iter(devices), profile="device", order=order, window=16))
    finally:
        over.set()
        thread.join()
    assert len(found) == len(site.records(order)) == 150


def test_results_come_while_requests_are_still_made(site: Site, connect: Connect, station: Any) -> None:
    order, devices = site.order(3), csrs("paced", 3)
    if connect is Station:
        answered = threading.Semaphore(1)

        def paced() -> Iterator[tuple[str, bytes]]:
            for device in devices:
                assert answered.acquire(timeout=30), "the result before this request did not come"
                yield device

        for result in station.issue_many(paced(), profile="device", order=order):
            assert result.certificate
            answered.release()
    else:
        import asyncio

        async def main() -> None:
            last = asyncio.Semaphore(1)

            async def paced() -> Any:
                for device in devices:
                    await asyncio.wait_for(last.acquire(), 30)
                    yield device

            async for result in station.station.issue_many(paced(), profile="device", order=order):
                assert result.certificate
                last.release()

        station.loop.run_until_complete(main())
    assert len(site.records(order)) == 3


def test_failing_input_reaches_the_caller(site: Site, station: Any) -> None:
    def broken() -> Iterator[tuple[str, bytes]]:
        yield csrs("input", 1)[0]
        raise KeyError("the scanner is gone")

    with pytest.raises(KeyError, match="scanner"):
        list(station.issue_many(broken(), profile="device", order=site.order(1)))
    with pytest.raises(SettingsError, match="profile"):
        list(station.issue_many(csrs("input", 1)))
    for wrong in ({"window": 0}, {"window": 5000}, {"timeout": -1.0}, {"give_up_after": float("nan")}):
        with pytest.raises(SettingsError):
            station.issue_many([], profile="device", **wrong)
    assert list(station.issue_many([], profile="device")) == []


def test_consumer_that_stops_early_leaves_nothing_behind(site: Site, connect: Connect) -> None:
    order, devices = site.order(100), csrs("early", 100)
    threads = {thread for thread in threading.enumerate() if thread.name.startswith("birthmark")}
    with connect(site.server, site.station()) as station:
        results = station.issue_many(iter(devices), profile="device", order=order)
        next(results)
        results.close()
        del results
        gc.collect()
        assert station.issue(*devices[0], profile="device", order=order)
    wait_until(
        "the threads have ended",
        lambda: threads.issuperset(t for t in threading.enumerate() if t.name.startswith("birthmark")),
    )


def test_several_calls_at_once_share_a_connection(site: Site) -> None:
    order = site.order(200)
    errors: list[BaseException] = []
    with Station(site.server, site.station()) as station:

        def work(number: int) -> None:
            try:
                devices = csrs(f"thread-{number}", 25)
                assert len(certificates(station.issue_many(devices, profile="device", order=order))) == 25
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert len(site.records(order)) == 200
    with pytest.raises(SettingsError, match="closed"):
        station.access()


def test_confirmed_certificates_are_recorded_so(site: Site, station: Any) -> None:
    order = site.order(20)
    issued = [result.unwrap() for result in station.issue_many(csrs("taken", 20), profile="device", order=order)]
    station.confirm(issued[0])
    station.confirm(issued[0].serial)
    unknown = "ff" * 20
    # Over the limit of one call, many times the same; each is answered in its place.
    mixed: list[Any] = [*issued, unknown] * 60
    answers = station.confirm_many(mixed)
    assert len(answers) == len(mixed)
    for one, answer in zip(mixed, answers):
        assert (answer.error is not None) == (one == unknown)
    assert {record["state"] for record in site.records(order)} == {"confirmed"}
    assert station.confirm_many([]) == []
    with pytest.raises(SettingsError, match="serial number"):
        station.confirm("not hex")


def test_confirmation_survives_a_kill(site: Site, station: Any) -> None:
    order = site.order(1)
    certificate = station.issue(fresh("kept"), csr("kept"), profile="device", order=order)
    site.kill()
    thread = threading.Timer(0.3, site.start)
    thread.start()
    station.confirm(certificate)
    thread.join()
    assert site.records(order)[0]["state"] == "confirmed"


def test_access_tells_what_the_station_may_use(site: Site, station: Any) -> None:
    access = station.access()
    profile = next(profile for profile in access.profiles if profile.name == "device")
    assert "p256" in profile.key_types and not profile.order_optional
    assert len(next(issuer for issuer in access.issuers if issuer.name == profile.issuer).chain) == 2
    # It asks each time, also on a connection that was good.
    site.kill()
    with pytest.raises(Unavailable):
        station.access()
    site.start()
    assert station.access() == access


def trouble(connect: Connect, server: str, identity: Any) -> BirthmarkError:
    """What a call says; the same for access() and for issue()."""
    with connect(server, identity) as station:
        begun = time.monotonic()
        with pytest.raises(BirthmarkError) as one:
            station.access()
        with pytest.raises(BirthmarkError) as other:
            station.issue("nobody", csr("nobody"), profile="device", timeout=0.7)
        assert time.monotonic() - begun < 15
    if not one.value.retryable:
        assert type(one.value) is type(other.value) and str(one.value) == str(other.value)
    return one.value


def test_what_is_wrong_with_a_connection_is_said(site: Site, connect: Connect, tmp_path: Path) -> None:
    good = Identity.from_folder(site.station())
    foreign_key = ec.generate_private_key(ec.SECP256R1())
    foreign = foreign_identity(tmp_path, foreign_key)

    wrong_ca = trouble(connect, site.server, Identity(good.certificate, good.key, foreign.certificate))
    assert isinstance(wrong_ca, TlsError) and "does not come from the CA" in str(wrong_ca)

    stranger = trouble(connect, site.server, Identity(foreign.certificate, foreign.key, good.ca))
    assert isinstance(stranger, TlsError) and "refused the identity's certificate" in str(stranger)

    plain = trouble(connect, f"https://{site.http}", good)
    assert isinstance(plain, TlsError) and "does not speak TLS" in str(plain)

    site.kill()
    away = trouble(connect, site.server, good)
    assert isinstance(away, Unavailable) and away.retryable and "refused" in str(away).lower()


def test_operator_may_not_issue(site: Site, connect: Connect) -> None:
    with connect(site.server, site.station("bert", "operator")) as station:
        with pytest.raises(NotAllowed) as refused:
            station.issue("nobody", csr("nobody"), profile="device")
        assert refused.value.code == "PERMISSION_DENIED" and not refused.value.retryable


def test_proxy_for_the_internet_is_not_asked(site: Site, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with connect(site.server, site.station()) as station:
        assert station.access().profiles


def test_settings_come_from_the_environment(site: Site, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIRTHMARK_SERVER", site.server)
    monkeypatch.setenv("BIRTHMARK_IDENTITY", str(site.station()))
    with connect() as station:
        assert station.access().profiles


def test_settings_that_cannot_be_used_are_named(site: Site, connect: Connect, tmp_path: Path) -> None:
    good = Identity.from_folder(site.station())
    for server in ("localhost:8443", "http://localhost:8443", "https://localhost", "https://a:1/x", "https://a:x", ""):
        with pytest.raises(SettingsError, match=r"https://HOST:PORT"):
            connect(server, good)
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    junk.chmod(0o600)
    other = Identity.from_folder(site.station("line1/9"))
    for identity, says in (
        (Identity(junk, good.key, good.ca), "cannot be used together"),
        (Identity(good.certificate, junk, good.ca), "cannot be used together"),
        (Identity(good.certificate, other.key, good.ca), "cannot be used together"),
        (Identity(good.certificate, good.key, junk), "no PEM certificate"),
        (tmp_path, "cannot read"),
    ):
        with pytest.raises(SettingsError, match=says):
            connect(site.server, identity)
    loose = tmp_path / "loose.pem"
    loose.write_bytes(good.key.read_bytes())
    loose.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        connect(site.server, Identity(good.certificate, loose, good.ca))


def foreign_identity(folder: Path, key: ec.EllipticCurvePrivateKey) -> Identity:
    """A certificate of nobody's CA that says it is a station's."""
    import datetime

    now = datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "line1/1")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:birthmark:station:line1/1")])
    from cryptography.hazmat.primitives import hashes

    certificate = builder.add_extension(san, critical=False).sign(key, hashes.SHA256())
    identity = Identity(folder / "foreign.pem", folder / "foreign.key", folder / "foreign.pem")
    identity.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    identity.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    identity.key.chmod(0o600)
    return identity
