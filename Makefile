# Thin targets: each is one command a person could type. `make test` and `make demo` need root, or user namespaces.

LAB = $(or $(CARGO_TARGET_DIR),target)/debug/lab

.PHONY: demo test lint bench chaos tools

demo: tools
	cargo build --workspace --bins
	$(LAB) demo --dir target/demo

test: tools
	cargo build --workspace --bins
	cargo test --workspace

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

bench: tools
	cargo bench -p dataplane --bench forward

# The promises under faults in namespaces, and ten times the usual runs of the lease simulation.
chaos: tools
	cargo build --workspace --bins
	LEASE_RUNS=150000 cargo test --workspace --test lease_simulation
	cargo test --workspace --test 'promise_*' --test 'takeover_*'

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
