# The commands of this project. `make` alone lists them; each one says what it installs before it does.

.PHONY: help run clean-run test lint fmt bench bench-storm soak fuzz doc
.DEFAULT_GOAL := help
# The scripts below take care of running things side by side; cargo does it by itself.
.NOTPARALLEL:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## a cloud on this machine: build, start, boot a guest; Ctrl-C stops the services (DEPLOYMENT=one or pieces)
	@DEPLOYMENT='$(or $(DEPLOYMENT),one)' dev/run

clean-run: ## remove what `make run` made: guests, libvirt, broker, database, records
	@dev/run --clean

test: ## every check, with a ledger of times (STAGES="lint unit" for some of them)
	@dev/test $(STAGES)

lint: ## format, clippy, documentation, licences
	@dev/test packages lint

fmt: ## format the Rust code
	cargo fmt --all

bench: ## measure: benchmarks and the speed floors, optimised build
	@dev/bench

bench-storm: ## measure: 5,000 boots by 50 clients on 1,000 fake hosts, RabbitMQ and PostgreSQL
	@dev/bench storm

soak: ## the long tests, optimised build (SEEDS=1000); as root, the network's and LVM's under Debian's stock kernel
	@dev/packages build rabbitmq postgresql network libvirt
	NOVA_TEST_SOAK_SEEDS=$(or $(SEEDS),1000) cargo test --release --workspace --features nova-examples/full -- --ignored soak --skip on_device_mapper
	tests/guests/vlan_guest
	tests/guests/lvm_guest

fuzz: ## libFuzzer over what arrives from outside (SECONDS=60 for each target)
	@dev/packages build fuzz
	@dev/fuzz $(or $(SECONDS),60)

doc: ## the documentation of all crates, in target/doc
	@dev/packages build
	cargo doc --workspace --features nova-examples/full --no-deps
