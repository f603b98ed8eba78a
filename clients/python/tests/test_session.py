"""What is asked when, and when to stop: without a daemon, with a clock that the test moves."""

from __future__ import annotations

import hashlib
from typing import Any, Optional

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from csrs import csr

from birthmark_station import (
    Access,
    DeadlineExceeded,
    Issuer,
    NotAllowed,
    Progress,
    Refused,
    Result,
    Unavailable,
    _wire,
)
from birthmark_station._confirming import Confirming
from birthmark_station._session import Broken, Session
from birthmark_station._wire import Failure, Issued, Reply

ACCESS = Access((Issuer("main", (b"issuing",)),), ())
AWAY = Failure("UNAVAILABLE", "the HSM is away", "HSM_UNAVAILABLE", 3.0)


class Clock:
    """Moves when told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Also without chance: pauses are as long as they may be."""
    monkeypatch.setattr("random.random", lambda: 1.0)
    return Clock()


def session(clock: Clock, **changed: Any) -> Session:
    """With what no test is about."""
    given: dict[str, Any] = dict(
        profile="device", order=None, reissue=False, window=4, timeout=None, give_up_after=None, progress=None
    )
    return Session(**{**given, **changed}, clock=clock)


KEY = ec.generate_private_key(ec.SECP256R1())


def issued(number: int, key: Optional[ec.EllipticCurvePrivateKey] = None, **changed: Any) -> Reply:
    """A reply with a certificate for the key."""
    import datetime

    now = datetime.datetime(2026, 1, 1)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key((key or KEY).public_key())
    builder = builder.serial_number(0x4711).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    der = builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    fields: dict[str, Any] = dict(
        certificate=der,
        serial_number=b"\x47\x11",
        certificate_id=hashlib.sha256(der).hexdigest(),
        issuer="main",
        replay=False,
    )
    return Reply(str(number), Issued(**{**fields, **changed}), None)


def failed(number: int, failure: Failure) -> Reply:
    """A reply with an error."""
    return Reply(str(number), None, failure)


def ask(one: Session, count: int = 1) -> list[bytes]:
    """Asks for devices whose key is KEY; gives the messages."""
    messages = [one.add((f"device-{number}", csr("x", KEY))) for number in range(count)]
    assert all(isinstance(message, bytes) for message in messages)
    return [message for message in messages if isinstance(message, bytes)]


def test_request_is_sent_again_after_the_servers_pause(clock: Clock) -> None:
    seen: list[Progress] = []
    one = session(clock, progress=seen.append)
    (message,) = ask(one)
    assert one.opened(ACCESS) == [message]
    assert one.settle(failed(0, AWAY)) is None
    # A quarter of chance comes on top.
    for now, due in ((1003.7, []), (1003.75, [message]), (1004, [])):
        clock.now = now
        assert one.due() == due
    result = one.settle(issued(0))
    assert result is not None and result.unwrap().chain == (b"issuing",)
    assert [progress.waiting for progress in seen] == [str(AWAY), None, None]
    assert (seen[-1].issued, seen[-1].unanswered) == (1, 0)
    one.input_ended = True
    assert one.done


@pytest.mark.parametrize(
    ("failure", "pause"),
    [
        (Failure("UNAVAILABLE", "", "", None), 1.25),
        (Failure("UNAVAILABLE", "", "STORAGE_LOW", 0.0), 0.0),
        # Whatever a newer daemon calls it: the pause decides.
        (Failure("RESOURCE_EXHAUSTED", "", "A_REASON_OF_TOMORROW", 2.0), 2.5),
        (Failure("UNAVAILABLE", "", "", 1e6), 75.0),
        (Failure("RESOURCE_EXHAUSTED", "", "ORDER_EXHAUSTED", None), None),
        (Failure("FAILED_PRECONDITION", "", "", None), None),
        (Failure("INTERNAL", "", "INTERNAL", None), None),
        (Failure("DATA_LOSS", "", "STORAGE_DAMAGED", None), None),
    ],
)
def test_item_is_asked_again_only_if_its_failure_may_pass(
    clock: Clock, failure: Failure, pause: Optional[float]
) -> None:
    one = session(clock)
    ask(one)
    one.opened(ACCESS)
    result = one.settle(failed(0, failure))
    if pause is None:
        assert result is not None and result.error is not None
        assert (result.error.code, result.error.reason) == (failure.code, failure.reason or failure.code)
    else:
        assert result is None and one.pause(True) == pause


@pytest.mark.parametrize(
    ("code", "retry_after", "passes"),
    [
        *((code, None, True) for code in ("UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL", "ABORTED")),
        ("DEADLINE_EXCEEDED", None, True),
        ("RESOURCE_EXHAUSTED", 1.0, True),
        ("RESOURCE_EXHAUSTED", None, False),
        *((code, None, False) for code in ("PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED", "OUT_OF_RANGE")),
    ],
)
def test_stream_is_opened_again_only_if_its_failure_may_pass(
    clock: Clock, code: str, retry_after: Optional[float], passes: bool
) -> None:
    one = session(clock)
    ask(one)
    failure = Failure(code, "so it is", "A_REASON", retry_after)
    if passes:
        one.broken(failure)
        assert one.reopen_at == clock.now + (retry_after or 0.1)
    else:
        with pytest.raises(NotAllowed) as error:
            one.broken(failure)
        assert (error.value.code, error.value.unanswered) == (code, ("device-0",))


def test_pause_before_connecting_grows_to_five_seconds(clock: Clock) -> None:
    one = session(clock)
    ask(one)
    pauses = []
    for _ in range(9):
        one.broken(Failure("UNAVAILABLE", "connection refused"))
        pauses.append(round(one.reopen_at - clock.now, 3))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    one.opened(ACCESS)
    one.settle(issued(0))
    ask(one)
    one.broken(Failure("UNAVAILABLE", "connection refused"))
    assert one.reopen_at - clock.now == pytest.approx(0.1)


def test_new_stream_begins_with_what_is_unanswered_in_order(clock: Clock) -> None:
    one = session(clock)
    messages = ask(one, 4)
    assert not one.room
    one.opened(ACCESS)
    assert one.settle(issued(1)) is not None and one.room
    assert one.settle(failed(2, AWAY)) is None
    one.broken(Failure("UNAVAILABLE", "connection reset"))
    # What the daemon wants later comes later, on whichever stream.
    assert one.opened(ACCESS) == [messages[0], messages[3]]
    clock.now += 10
    assert one.due() == [messages[2]]
    # Late and second answers are as good as the first.
    assert one.settle(issued(1)) is None
    assert one.settle(Reply("x", None, None)) is None


def test_patience_ends_after_the_last_answer(clock: Clock) -> None:
    one = session(clock, give_up_after=30.0)
    assert one.pause(False) == float("inf")
    ask(one, 2)
    one.opened(ACCESS)
    clock.now += 29
    one.settle(issued(0))
    one.check()
    clock.now += 29
    one.check()
    assert one.pause(True) == pytest.approx(1)
    clock.now += 1
    with pytest.raises(Unavailable, match="30 s") as error:
        one.check()
    assert error.value.unanswered == ("device-1",) and error.value.retryable


def test_patience_ends_though_others_are_answered_if_the_daemon_cannot_sign(clock: Clock) -> None:
    one = session(clock, give_up_after=30.0)
    ask(one)
    one.broken(AWAY)
    clock.now += 31
    with pytest.raises(Unavailable, match="HSM is away") as error:
        one.check()
    assert error.value.reason == "HSM_UNAVAILABLE"


def test_deadline_names_the_trouble(clock: Clock) -> None:
    one = session(clock, timeout=5.0)
    ask(one)
    one.settle(failed(0, AWAY))
    clock.now += 5
    with pytest.raises(DeadlineExceeded, match=r"within 5 s: the HSM is away \(HSM_UNAVAILABLE\)"):
        one.check()


def test_issuer_that_is_new_is_looked_up_once(clock: Clock) -> None:
    one = session(clock)
    ask(one)
    one.opened(ACCESS)
    reply = issued(0, issuer="new")
    with pytest.raises(Broken) as broken:
        one.settle(reply)
    one.broken(broken.value.failure)
    one.opened(Access((Issuer("new", (b"new",)),), ()))
    result = one.settle(reply)
    assert result is not None and result.unwrap().chain == (b"new",)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (issued(0, ec.generate_private_key(ec.SECP256R1())), "another key"),
        (issued(0, certificate_id="00"), "certificate id"),
        (issued(0, serial_number=b"\x01"), "serial number"),
        (issued(0, certificate=b"junk"), "no certificate"),
        (Reply("0", None, None), "neither"),
    ],
)
def test_certificate_that_does_not_answer_the_csr_is_refused(clock: Clock, reply: Reply, says: str) -> None:
    one = session(clock)
    ask(one)
    one.opened(ACCESS)
    result = one.settle(reply)
    assert result is not None and result.error is not None
    assert result.error.reason == "REPLY_MISMATCH" and says in result.error.message


def test_issuer_that_is_never_listed_is_refused(clock: Clock) -> None:
    one = session(clock)
    ask(one)
    one.opened(ACCESS)
    with pytest.raises(Broken):
        one.settle(issued(0, issuer="new"))
    one.opened(ACCESS)
    result = one.settle(issued(0, issuer="new"))
    assert result is not None and result.error is not None and "does not list" in result.error.message


def test_request_carries_what_was_given(clock: Clock) -> None:
    from birthmark_station import Request

    one = session(clock, order="lot", reissue=True)
    message = one.add(Request("a", csr("a", KEY), profile="other", order="", reissue=False))
    assert isinstance(message, bytes)
    sent = _wire._IssueRequest.FromString(message)
    assert (sent.device_id, sent.profile, sent.order, sent.reissue) == ("a", "other", "", False)
    message = one.add(("b", csr("b", KEY)))
    assert isinstance(message, bytes)
    sent = _wire._IssueRequest.FromString(message)
    assert (sent.device_id, sent.profile, sent.order, sent.reissue) == ("b", "device", "lot", True)
    assert isinstance(
        one.add(
            (
                "c",
                csr("c"),
            )
        ),
        bytes,
    )
    refused = one.add(Request("d", csr("d"), order="no id"))
    assert isinstance(refused, Result) and isinstance(refused.error, Refused)


def test_confirmations_that_wait_are_asked_again(clock: Clock) -> None:
    confirming = Confirming([bytes([number]) * 20 for number in range(3)], 60.0, clock)
    final = Failure("FAILED_PRECONDITION", "it is revoked", "STATE_REFUSED")
    assert confirming.batch() is not None
    assert confirming.answered([None, AWAY, final]) == 3.75
    second = confirming.batch()
    assert second == _wire.confirm_request([b"\x01" * 20])
    assert confirming.answered([None]) == 0
    assert confirming.batch() is None
    assert [result.error is None for result in confirming.results()] == [True, True, False]


def test_confirmation_call_that_fails_is_made_again_in_time(clock: Clock) -> None:
    confirming = Confirming([b"\x01" * 20], 1.0, clock)
    confirming.batch()
    assert confirming.failed(AWAY) == 1.0
    clock.now += 1
    with pytest.raises(DeadlineExceeded, match="HSM is away") as late:
        confirming.batch()
    assert late.value.unanswered == ("01" * 20,)
    with pytest.raises(NotAllowed):
        Confirming([b"\x01" * 20], None, clock).failed(Failure("INVALID_ARGUMENT", "", "REQUEST_INVALID"))
