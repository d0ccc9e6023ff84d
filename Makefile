# Thin targets: each is one command a person could type. `make test` and `make demo` need root, or user namespaces.

LAB = $(or $(CARGO_TARGET_DIR),target)/debug/lab
CHAOS = $(or $(CARGO_TARGET_DIR),target)/debug/chaos
INTEROP = $(or $(CARGO_TARGET_DIR),target)/debug/examples/interop

# The real node library on a simulated network, disk and clock. Its dependencies are built with flags of their own.
SIM = RUSTFLAGS="--cfg atm_sim --cfg tokio_unstable" cargo
SIM_DIR = $(or $(CARGO_TARGET_DIR),target)/sim
# What the core's tests emit.
CAPTURES = $(abspath $(or $(CARGO_TARGET_DIR),target))/captures
SEED ?= 1
SEEDS ?= 100

.PHONY: demo mail-demo test lint bench bench-failover chaos bugs hunters sim-node tools peers dns mail-packages interop kernel mail-nfs nfs-packages

# Installs the missing ones of PROGRAM:PACKAGE pairs as root; says so where it may not or cannot.
define install
	@missing=; for p in $(1); do \
	  PATH="$$PATH:/usr/sbin:/sbin" command -v $${p%%:*} >/dev/null || missing="$$missing $${p##*:}"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ]; then \
	  echo "installing$$missing"; \
	  apt-get update -qq; \
	  for p in $$missing; do \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$p >/dev/null || echo "not installed: $$p"; \
	  done; \
	elif [ -n "$$missing" ]; then \
	  echo "left out:$$missing (as root: apt-get install$$missing)"; \
	fi
endef

demo: tools
	cargo build --workspace
	$(LAB) demo --dir target/demo

# The clustered mail server of the tutorial, with postfix and dovecot. MAIL='--output json' or others of lab mail-demo.
mail-demo: tools mail-packages
	cargo build --workspace
	$(LAB) mail-demo --dir target/mail-demo $(MAIL)

# The same with a real NFS server, in user-mode-linux: slower, and by `direct`, as that kernel lacks the nftables of `tunnel`'s servers.
# Skipped where it cannot be had.
mail-nfs: tools mail-packages kernel nfs-packages
	cargo build --workspace --bins
	chaos-tests/mail/nfs $(dir $(LAB)) target/mail-nfs --method direct --slow 6 --heartbeat-ms 1000 --senders 5 $(MAIL) || [ $$? = 69 ]

test: tools dns mail-packages
	cargo build --workspace
	ATM_PCAP_DIR=$(CAPTURES) cargo test --workspace
	dataplane/core/judge-capture $(CAPTURES)/dataplane-core.pcapng
	$(SIM) test --package sim-node --target-dir $(SIM_DIR)

# SEEDS seeds from SEED on, until one breaks a promise.
sim-node:
	$(SIM) run --package sim-node --target-dir $(SIM_DIR) -- run --seed $(SEED) --seeds $(SEEDS)

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# One decision, then both packet ports. make bench JSON=decide.json writes the first table as JSON, too.
bench: tools
	cargo bench -p dataplane-core --features testing --bench decide -- $(if $(JSON),--json $(abspath $(JSON)))
	cargo bench -p dataplane --bench forward

# Takeover beside keepalived, conntrackd and ucarp; goes on where it was interrupted. BENCH='--trials 5 --time-limit 30m'
bench-failover: tools peers
	cargo build --workspace --bins
	$(CHAOS) bench-failover --write-docs $(BENCH)

# A kernel that is not ours: IPVS beside us, and servers whose kernel opens our tunnels. Skipped where it cannot be had.
interop: tools kernel
	cargo build --workspace --bins
	cargo build --package chaos-tests --example interop
	$(INTEROP) || [ $$? = 69 ]

# Ten minutes of every kind of fault, mixed, then the judgement. For another time or seed: make chaos TIME=8h SEED=4711
chaos: tools
	cargo build --workspace
	$(CHAOS) run --time $(or $(TIME),10m) $(if $(SEED),--seed $(SEED))

# Each known bug is planted and hunted until a checker finds it. BUGS='--bug no-wait-out --rung 2' for less.
bugs: tools hunters
	cargo build --workspace
	$(CHAOS) bugs --node $(SIM_DIR)/debug/sim-node $(BUGS)

# The programs with the planted bugs: examples, so that they never stand beside the sound ones.
hunters:
	cargo build --workspace --examples --features node/planted,chaos-tests/planted
	$(SIM) build --package sim-node --target-dir $(SIM_DIR)

# What Debian 12 with Rust, gcc and make may lack: the lab's and the daemon's ip and nft.
tools:
	$(call install,ip:iproute2 nft:nftables)
	@PATH="$$PATH:/usr/sbin:/sbin"; command -v ip >/dev/null && command -v nft >/dev/null || { echo "ip and nft are needed"; exit 69; }

# A DNS server that is not ours, for the tests of UDP; they say so when it is missing.
dns:
	$(call install,dnsmasq:dnsmasq-base)

# Mail daemons and clients that are not ours; the tests of the mail cluster say so when one is missing.
mail-packages:
	$(call install,postfix:postfix /usr/lib/dovecot/imap:dovecot-imapd /usr/lib/dovecot/pop3:dovecot-pop3d swaks:swaks curl:curl \
	  python3:python3 hostname:hostname)

# The routers to compare with. What cannot be had is skipped, by name.
peers:
	$(call install,keepalived:keepalived ucarp:ucarp conntrackd:conntrackd conntrack:conntrack)

# user-mode-linux and what is run in it. `interop` says what it lacks.
kernel:
	$(call install,linux.uml:user-mode-linux modprobe:kmod ipvsadm:ipvsadm)

# The NFS server of serv4 and the mount command of the others.
nfs-packages:
	$(call install,exportfs:nfs-kernel-server mount.nfs4:nfs-common)
