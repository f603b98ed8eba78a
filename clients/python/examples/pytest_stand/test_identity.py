"""The step of the test plan that gives the device its identity."""

from __future__ import annotations

import pytest
from conftest import Device

from birthmark_station import Station


def test_device_gets_its_certificate(station: Station, device: Device, request: pytest.FixtureRequest) -> None:
    certificate = station.issue(
        device.serial_number,
        device.read_csr(),
        profile=request.config.getoption("--profile"),
        order=request.config.getoption("--order"),
        timeout=30,
    )
    device.write_certificates(certificate.chain_pem)
    # Confirmed is what the device has, not what it was sent.
    assert device.read_certificate() == certificate.der
    station.confirm(certificate)
