# One obvious way to do each thing. `make help` lists them.

SHELL       := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.tools/bin:$(PATH)

DEMO_PROMPT ?= a red circle on a blue background
DEMO_OUT    ?= out.png
SERVICES    := controller proxy preprocess inference

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- use it -----------------------------------------------------------------------------------------------------------

.PHONY: build
build: onnxruntime ## Build the release binaries into target/release
	cargo build --release --locked --bins

.PHONY: demo
demo: build ## Build everything, start the four services, draw a picture, stop
	bash scripts/demo.sh "$(DEMO_PROMPT)" "$(DEMO_OUT)"

.PHONY: up
up: build ## Start the mesh on this machine; Ctrl-C stops it
	target/release/mobula up

.PHONY: onnxruntime
onnxruntime: ## Fetch the pinned ONNX Runtime library into .ort/
	@bash scripts/fetch-onnxruntime.sh

# --- change it --------------------------------------------------------------------------------------------------------

.PHONY: test
test: onnxruntime tools-test ## Run every test
	cargo build --locked --workspace --bins
	cargo nextest run --locked --workspace
	cargo test --locked --workspace --doc --quiet

.PHONY: verify
verify: fmt clippy deny doc proto test ## Everything that CI asks for

.PHONY: fmt
fmt: ## Check the formatting
	cargo fmt --all -- --check

.PHONY: clippy
clippy: ## Lint; warnings are errors here, not in the lint table
	cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: deny
deny: tools-deny ## Check licences, sources and who may depend on what
	cargo deny --log-level error check bans licenses sources
	@for crate in serving schema diffusion embeddings; do \
	  cargo deny --log-level error --manifest-path crates/$$crate/Cargo.toml --config $(CURDIR)/deny/pure.toml check bans || exit 1; \
	done

.PHONY: doc
doc: ## Build the documentation; broken links are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet

.PHONY: proto
proto: tools-buf ## Lint the contracts
	.tools/venv/bin/buf lint

.PHONY: bench
bench: build ## Measure: the engine against bare ONNX Runtime and whole-request batching, the mesh, start-up, memory
	bash scripts/bench.sh

.PHONY: loads
loads: build ## Measure 1.5 times capacity, a burst of 8 times, and an hour of soak; MOBULA_SOAK_SECONDS=120 shortens it
	bash scripts/loads.sh

.PHONY: ray-cli
ray-cli: build ## Drive a mesh with Ray's own `serve` command; installs Ray into .tools/ray unless RAY_SERVE names it
	bash scripts/ray-cli.sh

.PHONY: clients
clients: build ## Drive a mesh with grpcurl, buf, stubs for Python, Go and C++, gRPC-Web, and the clients of Ray's samples
	bash scripts/clients.sh

.PHONY: compare
compare: build ## Measure beside Ray Serve by turns on the same cores; installs Ray and torch into .tools/ray-compare; ARGS=--quick tries it
	bash loadtest/ray/install.sh .tools/ray-compare
	.tools/ray-compare/bin/python loadtest/ray/compare.py $(ARGS)

.PHONY: chaos
chaos: ## Change and kill (proxies, too) at random under load, MOBULA_CHAOS_S seconds (600) in the order of MOBULA_CHAOS_SEED
	cargo build --locked --workspace --bins
	cargo test --locked -p mobula-e2e --test suite chaos -- --ignored --nocapture

# --- ship it ----------------------------------------------------------------------------------------------------------

.PHONY: image
image: build ## Build the four images from the binaries in target/release
	bash scripts/images.sh $(SERVICES)

.PHONY: compose-test
compose-test: image ## Start the compose file, draw a picture through it, stop it
	bash scripts/compose-test.sh

# --- tools that the targets above need; nothing of Mobula needs them at run time --------------------------------------

.PHONY: tools-test tools-deny tools-buf
tools-test:
	@bash scripts/tools.sh nextest openai triton
tools-deny:
	@bash scripts/tools.sh deny
tools-buf:
	@bash scripts/tools.sh buf
