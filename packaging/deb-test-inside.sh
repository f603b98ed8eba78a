#!/bin/bash
# The part of deb-test.sh inside: its folder has the packages (before/, now/) and the page's commands (page.sh).
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
cd /test

step() { echo "deb-test: $*"; }
fail() {
    echo "deb-test: $*" >&2
    tail -n 20 /test/*.log >&2 || true
    exit 1
}
expect() { "$@" || fail "not so: $*"; }
within() { # within SECONDS COMMAND…
    local left=$(($1 * 10))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $((left -= 1)) -gt 0 ] || fail "not in time: $*"
        sleep 0.1
    done
}

# What systemd does with the units, as far as it matters here.
cat >/usr/local/bin/systemctl <<'STAND_IN'
#!/bin/bash
set -euo pipefail
start() {
    file=/lib/systemd/system/${1/@*/@}.service
    get() { sed -n -e ':a' -e '/\\$/{N;ba}' -e 's/\\\n//g' -e "s/^$2=-\{0,1\}//p" "$file" | sed "s/%i/${1#*@}/g"; }
    user=$(get "$1" User)
    for folder in $(get "$1" StateDirectory); do
        install -d -o "$user" -g "$user" -m "$(get "$1" StateDirectoryMode)" "/var/lib/$folder"
    done
    for folder in $(get "$1" RuntimeDirectory); do
        install -d -o "$user" -g "$user" -m "$(get "$1" RuntimeDirectoryMode)" "/run/$folder"
    done
    for environment in $(get "$1" EnvironmentFile); do
        set -a
        # shellcheck disable=SC1090
        . "$environment"
        set +a
    done
    # What is mounted read-only, as far as it matters here; ReadWritePaths and State- and RuntimeDirectory are not.
    confined=()
    if [ "$(get "$1" ProtectSystem)" = strict ]; then
        confined=(unshare --mount --propagation unchanged bash -euc 'for path in /etc /usr; do mount --bind $path $path; mount -o remount,bind,ro $path; done
            for path in $0; do [ ! -e "$path" ] || { mount --bind "$path" "$path"; mount -o remount,bind,rw "$path"; }; done
            exec "$@"' "$(get "$1" ReadWritePaths)")
    fi
    as=(setpriv "--reuid=$user" "--regid=$user" --init-groups --no-new-privs --bounding-set=-all --)
    for before in $(get "$1" ExecStartPre | tr ' ' '\a'); do "${as[@]}" sh -c "umask $(get "$1" UMask); $(echo "$before" | tr '\a' ' ')"; done
    (cd / && exec setsid "${confined[@]}" "${as[@]}" sh -c "umask $(get "$1" UMask); exec $(get "$1" ExecStart)") >>"/test/$1.log" 2>&1 &
    echo $! >"/run/$1.pid"
    # systemd waits until the daemon says that it is ready.
    [ "$1" != birthmark ] || timeout 60 sh -c 'until birthmark issuer list; do sleep 0.1; done' >/dev/null 2>&1
}
stop() {
    kill "$(cat "/run/$1.pid")"
    while kill -0 "$(cat "/run/$1.pid")" 2>/dev/null; do sleep 0.1; done
}
case "$1 $2" in
"enable --now") start "$3" ;;
start\ *) start "$2" ;;
stop\ *) stop "$2" ;;
restart\ *) stop "$2" && start "$2" ;;
*) echo "systemctl $*: not of this stand-in" >&2 && exit 1 ;;
esac
STAND_IN
chmod +x /usr/local/bin/systemctl

answers() { runuser -u anna -- birthmark issuer list; }
certificates() { find /var/lib/birthmark-station/line1/out -name '*.pem' | wc -l; }
has_certificates() { [ "$(certificates)" = "$1" ]; }
devices() { # devices ID…: requests in the hot folder, whole when they are seen
    for device in "$@"; do
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$device.key" -subj "/CN=$device" -out "$device.csr" 2>/dev/null
        chgrp birthmark-station "$device.csr" && chmod 640 "$device.csr"
        mv "$device.csr" /var/lib/birthmark-station/line1/in/
    done
}
# What is the site's own, byte for byte.
own() { find /var/lib/birthmark /var/lib/birthmark-station /etc/birthmark/ca /etc/birthmark/hsm /etc/birthmark/server \
    /etc/birthmark/ceremony.toml /etc/birthmark-station -type f | sort | xargs sha256sum; }

step "install"
dpkg --install before/*.deb >dpkg.log 2>&1 || fail "dpkg --install"
expect test "$(stat -c '%U:%G %a' /etc/birthmark)" = "root:birthmark 750"
expect test "$(stat -c '%U:%G %a' /etc/birthmark-station)" = "root:birthmark-station 750"
for unit in birthmark birthmark-aws; do
    expect test "$(/bin/systemctl is-enabled $unit.service)" = disabled
done
systemd-analyze verify --man=no /lib/systemd/system/birthmark.service /lib/systemd/system/birthmark-aws.service \
    /lib/systemd/system/birthmark-station@.service 2>&1 | { ! grep birthmark; } || fail "systemd-analyze verify"
expect test -z "$(dpkg --verify)"
# There is no systemd to do it: an upgrade restarts what runs, and a removal stops it.
for unit in birthmark.service birthmark-aws.service 'birthmark-station@\*.service'; do
    package=$(basename "${unit%%@*}" .service)
    expect grep -q "try-restart '$unit'" "/var/lib/dpkg/info/$package.postinst"
    expect grep -q "stop '\{0,1\}$unit" "/var/lib/dpkg/info/$package.prerm"
    # shellcheck disable=SC2016
    expect sh -c '! grep -E "invoke (start|restart)" "/var/lib/dpkg/info/$1.postinst"' sh "$package"
done
for program in birthmark birthmark-station birthmark-bench birthmark-aws; do
    $program --version | grep -q ' 0\.1\.0' || fail "$program --version"
    expect test -e "/usr/share/man/man1/$program.1.gz" -a -e "/usr/share/doc/$program/$program.cdx.json"
done
for program in birthmark birthmark-station birthmark-aws; do
    bash -c ". /usr/share/bash-completion/completions/$program && complete -p $program" >/dev/null || fail "completion of $program"
done
# The station's program has nothing of PKCS#11 and of the ledger; that it would be found is seen in the daemon's.
for word in C_GetFunctionList birthmark.journal; do
    expect grep -q "$word" /usr/bin/birthmark
    expect sh -c "! grep -q $word /usr/bin/birthmark-station"
done
birthmark serve --check >check.log 2>&1 && fail "a configuration without keys is none"
grep -q 'ca/' check.log || fail "serve --check does not say what is missing: $(cat check.log)"

step "start, as docs/install.md has it"
bash -euxo pipefail /test/page.sh >page.log 2>&1 || fail "docs/install.md"
within 60 answers
devices unit-1 unit-2 unit-3
within 60 has_certificates 3
expect openssl verify -CAfile /etc/birthmark/ca/root.pem -untrusted /etc/birthmark/ca/issuer.pem \
    /var/lib/birthmark-station/line1/out/unit-1.pem >/dev/null
setpriv --reuid=nobody --regid=nogroup --clear-groups birthmark issuer list >/dev/null 2>&1 && fail "anybody is an operator"
runuser -u nobody -- sh -c 'cat /etc/birthmark/hsm/pin || cat /etc/birthmark/birthmark.toml || ls /var/lib/birthmark' >/dev/null 2>&1 &&
    fail "anybody reads the configuration"

step "upgrade, while it runs"
dpkg --install now/*.deb >dpkg.log 2>&1 || fail "dpkg --install of the newer version"
answers >/dev/null || fail "the daemon is gone"
systemctl restart birthmark
within 60 answers
systemctl restart birthmark-station@line1
devices unit-4
within 60 has_certificates 4
expect test "$(runuser -u anna -- birthmark record list --order lot-1 --json | grep -c device_id)" -ge 4
systemctl stop birthmark-station@line1
systemctl stop birthmark
birthmark journal verify /var/lib/birthmark --trusted-key /etc/birthmark/ca/audit.pem >verify.log || fail "journal verify: $(cat verify.log)"
own >own.before

step "remove, and install again"
dpkg --remove birthmark-bench birthmark-aws birthmark-station birthmark >dpkg.log 2>&1 || fail "dpkg --remove"
expect test ! -e /usr/bin/birthmark -a -e /etc/birthmark/birthmark.toml
own | diff own.before - >own.diff || fail "a file of the site was touched: $(cat own.diff)"
dpkg --install now/*.deb >dpkg.log 2>&1 || fail "dpkg --install"
systemctl start birthmark
within 60 answers
systemctl stop birthmark
own >own.before

step "purge"
dpkg --purge birthmark-bench birthmark-aws birthmark-station birthmark >dpkg.log 2>&1 || fail "dpkg --purge"
expect test ! -e /etc/birthmark/birthmark.toml
expect grep -q '/var/lib/birthmark stays' dpkg.log
expect grep -q '/etc/birthmark-station stays' dpkg.log
own | diff own.before - >own.diff || fail "a file of the site was touched: $(cat own.diff)"
dpkg --install now/birthmark_*.deb >dpkg.log 2>&1 || fail "dpkg --install"
echo "# ours" >>/etc/birthmark/birthmark.toml
cp /etc/birthmark/birthmark.toml ours
dpkg --purge birthmark >dpkg.log 2>&1 || fail "dpkg --purge"
expect cmp ours /etc/birthmark/birthmark.toml
expect grep -q 'was changed, so it stays' dpkg.log
# Then it is a file of the site, which dpkg asks about; this answers for the site's.
dpkg --force-confold --install now/birthmark_*.deb >dpkg.log 2>&1 || fail "dpkg --install"
expect cmp ours /etc/birthmark/birthmark.toml
dpkg --remove birthmark >dpkg.log 2>&1
dpkg --purge birthmark >dpkg.log 2>&1 || fail "dpkg --purge"
expect cmp ours /etc/birthmark/birthmark.toml
expect test -z "$(find /etc/birthmark -name '.birthmark.toml*')"
step "done"
