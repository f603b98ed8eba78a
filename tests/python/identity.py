"""Who we are to the daemon: a folder with cert.pem, key.pem and ca.pem, as `birthmark station enroll` makes it."""

from pathlib import Path

import grpc


def connect(server: str, identity: Path, timeout: float = 10.0) -> grpc.Channel:
    """A channel over mutual TLS to `host:port`, once it is up. Raises grpc.FutureTimeoutError."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=(identity / "ca.pem").read_bytes(),
        private_key=(identity / "key.pem").read_bytes(),
        certificate_chain=(identity / "cert.pem").read_bytes(),
    )
    channel = grpc.secure_channel(server, credentials)
    grpc.channel_ready_future(channel).result(timeout)
    return channel
