# The commands of this repository. Each installs what it needs that is not there, says what, and is safe to run twice.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

CARGO ?= cargo

.PHONY: help demo test chaos bench cluster-up cluster-down images package sbom lint crds example clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## no cluster: run the agent alone on this machine, count real TCP connections, leave nothing behind
	@tests/demo.sh

test: ## everything that can be tested here; ends with "N passed, N failed"
	@tests/run.sh

chaos: ## the same tests in their long form, what takes too long for them, and half an hour of fuzzing
	@SOCKEYE_CHAOS=1 tests/run.sh
	@tests/fuzz.sh 1800

bench: ## what sockeye costs beside libbpf, as ratios in one run: a table, and target/bench/*.json
	@tests/bench/run.sh

cluster-up: ## a Kubernetes of two nodes on this machine, with sockeye installed on it by Helm
	@tests/cluster/up.sh

cluster-down: ## stop it and leave nothing behind
	@tests/cluster/down.sh

images: ## build localhost/sockeye-operator:dev and localhost/sockeye-agent:dev
	@deploy/images/build.sh

package: ## package the chart, with its SBOM, into target/chart
	@deploy/package.sh

sbom: ## what images and chart are made of, as CycloneDX: target/sbom/{operator,agent,chart}.json
	@deploy/sbom.sh

lint: ## formatting, clippy, dependencies' policy, chart, shell scripts, generated files
	@tests/lint/run.sh

crds: ## regenerate the chart's CustomResourceDefinitions from crds/src
	@mkdir -p target
	$(CARGO) run --quiet -p sockeye-crds --bin crdgen > target/crds.yaml
	cp target/crds.yaml deploy/chart/files/crds.yaml
	git --no-pager diff --stat -- deploy/chart/files/crds.yaml

example: ## regenerate the objects in deploy/examples from ebpf/programs
	@$(CARGO) run --quiet -p sockeye-ebpf --features fixtures --example inline
	git --no-pager diff --stat -- deploy/examples

clean: cluster-down ## stop the cluster and remove what was built (not the cached tools in ~/.cache/sockeye)
	@$(CARGO) clean
