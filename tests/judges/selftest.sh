#!/usr/bin/env bash
# Shows that each judge takes good certificates and refuses bad ones: selftest.sh [GO-JUDGE]
#
# Makes a small CA with openssl, good device certificates, and bad ones that each have one fault. GO-JUDGE is the
# built Go judge; without it, it is built.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go_judge=${1:-$work/judge}
if [ $# -eq 0 ]; then
    (cd "$here/go" && GOTOOLCHAIN=local go build -buildvcs=false -o "$go_judge" .)
fi
go_judge=$(realpath "$go_judge")
cd "$work"

quiet() { "$@" </dev/null >log 2>&1 || { cat log >&2; echo "selftest: failed: $*" >&2; exit 1; }; }

cat >ca.cnf <<'CNF'
[req]
distinguished_name = dn
[dn]
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[issuing]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[device]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[device-ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, digitalSignature, keyCertSign
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[device-server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[device-critical]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
1.3.6.1.4.1.99999.1 = critical, DER:0500
[device-no-aki]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = none
CNF

new_key() { quiet openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"; }
new_root() {
    new_key "$1"
    quiet openssl req -x509 -new -config ca.cnf -extensions root -key "$1.key" -subj /CN=root -days 3650 -out "$1.pem"
}
# issue NAME SUBJECT EXTENSIONS ISSUER [x509 options…]
issue() {
    local name=$1 subject=$2 extensions=$3 issuer=$4
    shift 4
    new_key "$name"
    quiet openssl req -new -config ca.cnf -key "$name.key" -subj "$subject" -out "$name.csr"
    quiet openssl x509 -req -in "$name.csr" -CA "$issuer.pem" -CAkey "$issuer.key" -extfile ca.cnf \
        -extensions "$extensions" -out "$name.pem" "$@"
}
new_root root
issue issuing /CN=issuing issuing root -days 3650
# Another CA of the same names: only the signatures tell.
new_root root2
issue issuing2 /CN=issuing issuing root2 -days 3650

for n in 1 2 3; do issue "good$n" "/CN=good$n" device issuing -days 365; done
issue expired /CN=expired device issuing -days -1
issue other-issuer /CN=other device issuing2 -days 365
issue calls-itself-ca /CN=ca device-ca issuing -days 365
issue for-servers /CN=server device-server issuing -days 365
issue critical-unknown /CN=critical device-critical issuing -days 365
issue no-aki /CN=no-aki device-no-aki issuing -days 365
# 21 octets; and 0.
issue serial-long /CN=serial device issuing -days 365 -set_serial "0x7f$(printf '%040d' 1)"
issue serial-zero /CN=serial device issuing -days 365 -set_serial 0
# One octet of the signature changed.
openssl x509 -in good1.pem -outform DER -out good1.der
size=$(stat -c %s good1.der)
last=$(tail -c 1 good1.der | od -An -tu1)
{ head -c $((size - 1)) good1.der; printf '%b' "\\x$(printf '%02x' $((last ^ 1)))"; } >signature-changed.der
openssl x509 -in signature-changed.der -inform DER -out signature-changed.pem
cat good1.pem good2.pem >two.pem
: >empty.pem

failures=0
# expect takes|refuses JUDGE CERT…
expect() {
    local verdict=$1 judge=$2 said code=0
    shift 2
    said=$("$judge" root.pem issuing.pem "$@" 2>&1) || code=$?
    case $verdict:$code:$said in
    takes:0:"$# certificates verified") ;;
    refuses:1:*) [ -z "${VERBOSE:-}" ] || echo "$said" ;;
    *)
        echo "selftest: $(basename "$judge") should have said that it $verdict $*; it exited $code and said: $said" >&2
        failures=$((failures + 1))
        ;;
    esac
}
everyone="expired other-issuer calls-itself-ca for-servers critical-unknown signature-changed two empty absent"
for judge in "$here/openssl.sh" "$here/gnutls.sh" "$go_judge" "$here/python.sh"; do
    expect takes "$judge" good1.pem
    expect takes "$judge" good1.pem good2.pem good3.pem
    for bad in $everyone; do
        expect refuses "$judge" good1.pem "$bad.pem" good2.pem
    done
done
# What not every judge looks at.
expect refuses "$here/openssl.sh" no-aki.pem
expect refuses "$go_judge" no-aki.pem
expect refuses "$here/python.sh" no-aki.pem
expect refuses "$go_judge" serial-long.pem
expect refuses "$go_judge" serial-zero.pem

if [ "$failures" -gt 0 ]; then
    echo "selftest: $failures verdicts were wrong" >&2
    exit 1
fi
echo "selftest: the judges take what is good and refuse what is bad"
