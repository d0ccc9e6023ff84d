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

.PHONY: demo test lint bench bench-failover chaos bugs hunters sim-node tools peers dns interop kernel

demo: tools
	cargo build --workspace
	$(LAB) demo --dir target/demo

test: tools dns
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
	@if ! command -v ip >/dev/null || ! command -v nft >/dev/null; then \
	  if [ "$$(id -u)" = 0 ]; then \
	    echo "installing iproute2 and nftables"; \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends iproute2 nftables >/dev/null; \
	  else \
	    echo "ip and nft are needed: apt-get install iproute2 nftables (as root)"; exit 69; \
	  fi; \
	fi

# A DNS server that is not ours, for the tests of UDP; they say so when it is missing.
dns:
	@if PATH="$$PATH:/usr/sbin:/sbin" command -v dnsmasq >/dev/null; then :; elif [ "$$(id -u)" = 0 ]; then \
	  echo "installing dnsmasq-base"; \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends dnsmasq-base >/dev/null; } || echo "not installed: dnsmasq-base"; \
	else \
	  echo "left out: dnsmasq (as root: apt-get install dnsmasq-base)"; \
	fi

# The routers to compare with. What cannot be had is skipped, by name.
peers:
	@missing=; for p in keepalived ucarp conntrackd conntrack; do \
	  PATH="$$PATH:/usr/sbin:/sbin" command -v $$p >/dev/null || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ]; then \
	  echo "installing$$missing"; \
	  apt-get update -qq; \
	  for p in $$missing; do apt-get install -y -qq --no-install-recommends $$p >/dev/null || echo "not installed: $$p"; done; \
	elif [ -n "$$missing" ]; then \
	  echo "left out:$$missing (as root: apt-get install$$missing)"; \
	fi

# user-mode-linux and what is run in it. `interop` says what it lacks.
kernel:
	@missing=; for p in linux.uml:user-mode-linux modprobe:kmod ipvsadm:ipvsadm; do \
	  PATH="$$PATH:/usr/sbin:/sbin" command -v $${p%%:*} >/dev/null || missing="$$missing $${p##*:}"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ]; then \
	  echo "installing$$missing"; \
	  apt-get update -qq; \
	  for p in $$missing; do apt-get install -y -qq --no-install-recommends $$p >/dev/null || echo "not installed: $$p"; done; \
	elif [ -n "$$missing" ]; then \
	  echo "left out:$$missing (as root: apt-get install$$missing)"; \
	fi
