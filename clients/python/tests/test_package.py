"""What the package is made of."""

from __future__ import annotations

import re
from importlib import metadata, resources

import pytest
from site_of_tests import REPOSITORY

import birthmark_station
from birthmark_station import BirthmarkError, DeadlineExceeded, Refused, Unavailable, _wire


def test_package_has_the_daemons_version() -> None:
    text = (REPOSITORY / "Cargo.toml").read_text(encoding="utf-8")
    package = re.search(r'^version = "(.*)"$', text, re.MULTILINE)
    assert package is not None and birthmark_station.__version__ == package[1]


def test_only_grpcio_and_protobuf_are_needed() -> None:
    needed = metadata.requires("birthmark-station") or []
    assert {re.split(r"[<>=!;\[ ]", one)[0] for one in needed} == {"grpcio", "protobuf"}


def test_package_is_typed_and_has_its_messages() -> None:
    files = {file.name for file in resources.files("birthmark_station").iterdir()}
    assert {"py.typed", "_wire.binpb"} <= files


def test_messages_are_those_of_the_protocol() -> None:
    text = (REPOSITORY / "proto/birthmark/v1/issuance.proto").read_text(encoding="utf-8")
    text = re.sub(r"//[^\n]*", "", text)
    for name, body in re.findall(r"^message (\w+) \{(\}|.*?^\})", text, re.DOTALL | re.MULTILINE):
        fields = dict(re.findall(r"(\w+) = (\d+);", body))
        known = _wire._POOL.FindMessageTypeByName(f"birthmark.v1.{name}").fields
        assert {field.name: str(field.number) for field in known} == fields, name


def test_messages_are_in_nobodys_way() -> None:
    """Google's generated code may be there too, with the same file names."""
    pytest.importorskip("google.rpc", reason="googleapis-common-protos is not installed")
    from google.protobuf import descriptor_pool

    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileByName("birthmark/v1/issuance.proto")


def test_exceptions_say_whether_to_ask_again() -> None:
    import copy
    import pickle

    refused = Refused("it is weak", "KEY_WEAK", "INVALID_ARGUMENT")
    refused.unanswered = ("a",)
    for error in (refused, DeadlineExceeded("too late"), Unavailable("away", "DRAINING", "UNAVAILABLE")):
        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(again) is type(error) and again.__dict__ == error.__dict__ and str(again) == str(error)
        assert isinstance(error, BirthmarkError) and error.retryable is not isinstance(error, Refused)
    assert str(refused) == "it is weak (KEY_WEAK)"
