#!/usr/bin/env bash
# Judges issued device certificates with Python's cryptography: python.sh ROOT.pem ISSUER.pem CERT.pem…
#
# As the other judges. `make test` makes the Python that has the package.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "$here/../.venv/bin/python" "$here/python.py" "$@"
