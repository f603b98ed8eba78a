#!/usr/bin/env bash
# The world of one page of the documents: documents.rs runs this file in namespaces (user, network, mounts) of the page's own, so
# that a page may show the ports, folders and host names that a site has. Then it runs the page.
#
#   world.sh FOLDER START SCRIPT     START: "checkout" (the repository's files in the current folder) or "installed" (the same, and a
#                                    daemon with /etc/birthmark, /var/lib/birthmark and /run/birthmark that runs)
#
# REPOSITORY and PROGRAM (the folder of the programs) come from the environment.
set -euo pipefail

world=$1 start=$2 script=$3
ip link set lo up
# Where the system lets it; the daemon reads who uses its socket there.
mount -t proc proc /proc 2>/dev/null || true

# /etc as it is, but for what is the page's own.
mkdir "$world/etc" "$world/here" "$world/home" "$world/bin"
mount --rbind /etc "$world/etc"
mount -t tmpfs tmpfs /etc
ln -s "$world"/etc/* /etc/
rm -f /etc/hosts /etc/birthmark
echo "127.0.0.1 localhost ca.line1 mes.plant.example pki.example.com" >/etc/hosts
for folder in /run /mnt /srv /var/lib /var/log; do
    mount -t tmpfs tmpfs "$folder"
done

# Programs that stand in. `birthmark serve` has a terminal of its own: it comes back when the daemon is ready. Who is asked by
# `birthmark ceremony` says yes.
stand_in() {
    cat >"$world/bin/$1"
    chmod +x "$world/bin/$1"
}
stand_in birthmark <<STAND_IN
#!/usr/bin/env bash
program=$PROGRAM/birthmark
case " \$* " in
" serve"*" --check "* | " serve"*" --help "*) exec "\$program" "\$@" ;;
" serve "*) ;;
" ceremony verify "* | " ceremony"*" --dry-run "* | " ceremony"*" --yes "*) exec "\$program" "\$@" ;;
" ceremony "*) exec "\$program" "\$@" --yes ;;
*) exec "\$program" "\$@" ;;
esac
rm -f $world/ready
"\$program" "\$@" --ready-file $world/ready >>$world/daemon.log 2>$world/daemon.err &
daemon=\$!
echo "\$daemon" >$world/daemon.pid
until [ -e $world/ready ]; do
    if ! kill -0 "\$daemon" 2>/dev/null; then
        cat $world/daemon.err >&2
        wait "\$daemon"
        exit
    fi
    sleep 0.02
done
STAND_IN
# What systemd does with the daemon's unit.
stand_in systemctl <<STAND_IN
#!/usr/bin/env bash
daemon=\$(cat $world/daemon.pid 2>/dev/null || true)
case "\$1 \${2-birthmark}" in
"stop birthmark" | "restart birthmark")
    kill "\$daemon"
    while kill -0 "\$daemon" 2>/dev/null; do sleep 0.02; done
    [ "\$1" = stop ] || exec birthmark serve --config /etc/birthmark/birthmark.toml
    ;;
"start birthmark") exec birthmark serve --config /etc/birthmark/birthmark.toml ;;
"reload birthmark") kill -HUP "\$daemon" ;;
"kill birthmark") kill -9 "\$daemon" ;;
*) echo "systemctl \$*: this stand-in of the tests does not know that" >&2 && exit 1 ;;
esac
STAND_IN
stand_in journalctl <<STAND_IN
#!/usr/bin/env bash
cat $world/daemon.err
STAND_IN
# The station's program has the same commands; not every build has it.
stand_in birthmark-station <<STAND_IN
#!/usr/bin/env bash
exec $PROGRAM/birthmark station "\$@"
STAND_IN
stand_in sudo <<STAND_IN
#!/usr/bin/env bash
while [ "\${1-}" = -u ]; do shift 2; done
exec "\$@"
STAND_IN
# What a page's own set-up may use: `test-csrs FOLDER ID…` makes keys and CSRs, `test-devices ORDER ID…` also the identity
# line1-tester1 and the order, where they are missing, and has the CSRs signed.
stand_in test-csrs <<'STAND_IN'
#!/usr/bin/env bash
set -euo pipefail
folder=$1
shift
mkdir -p "$folder"
for id in "$@"; do
    openssl ecparam -genkey -name prime256v1 -noout -out "$folder/$id.key"
    openssl req -new -key "$folder/$id.key" -subj "/CN=$id" -out "$folder/$id.csr"
done
STAND_IN
stand_in test-devices <<'STAND_IN'
#!/usr/bin/env bash
set -euo pipefail
order=$1
shift
[ -e line1-tester1 ] || birthmark station enroll line1/tester1 --config /etc/birthmark/birthmark.toml
birthmark order show "$order" >/dev/null 2>&1 || birthmark order create "$order" --profile device --quantity 1000
made=$(mktemp -d)
test-csrs "$made" "$@"
mkdir -p csrs certs
birthmark station sign --server https://localhost:8443 --identity line1-tester1 --order "$order" --profile device \
    --in "$made" --out certs --chain
cp "$made"/* csrs/
STAND_IN
for tool in "$REPOSITORY/target/grpcurl" "$REPOSITORY/tests/.venv/bin/python"; do
    [ ! -e "$tool" ] || printf '#!/bin/sh\nexec %s "$@"\n' "$tool" | stand_in "$(basename "$tool")"
done
[ ! -e "$world/bin/python" ] || cp "$world/bin/python" "$world/bin/python3"

for name in "$REPOSITORY"/*; do
    case ${name##*/} in
    hsm-config) cp -r "$name" "$world/here/" ;;
    target | tests) ;;
    *) ln -s "$name" "$world/here/" ;;
    esac
done

export PATH=$world/bin:$PATH HOME=$world/home
unset SOFTHSM2_CONF BIRTHMARK_PIN BIRTHMARK_SOCKET BIRTHMARK_SERVER BIRTHMARK_IDENTITY

if [ "$start" = installed ]; then
    mkdir /etc/birthmark /var/lib/birthmark /run/birthmark
    cp -r "$REPOSITORY"/hsm-config/. /etc/birthmark
    (
        cd /etc/birthmark
        sed -i 's|^path = "data"|path = "/var/lib/birthmark"|; s|^socket = .*|socket = "/run/birthmark/admin.sock"|' birthmark.toml
        softhsm/setup.sh hsm
        birthmark ceremony ceremony.toml --yes
        birthmark station enroll birthmark --role server --dns localhost --dns ca.line1 --ip 127.0.0.1 --out server
        birthmark serve --config birthmark.toml
    ) >"$world/site.log" 2>&1 || { cat "$world/site.log" >&2 && exit 1; }
fi

cd "$world/here"
exec bash "$script"
