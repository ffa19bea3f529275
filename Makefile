# The commands of this repository. Each says and installs what is missing, and is safe to run twice.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

CARGO ?= cargo

.PHONY: help demo test chaos bench cluster-up cluster-down images package sbom release publish lint crds example reasons clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## no cluster: run the agent alone on this machine, count real TCP connections, leave nothing behind
	@tests/demo.sh

test: ## all tests; ends with "N passed, N failed"
	@tests/run.sh

chaos: ## all tests in their long form, and half an hour of fuzzing
	@SOCKEYE_CHAOS=1 tests/run.sh
	@tests/fuzz.sh 1800

bench: ## measure the cost of sockeye as ratios to libbpf: a table, and target/bench/*.json
	@tests/bench/run.sh

cluster-up: ## a Kubernetes of two nodes on this machine, with sockeye installed by Helm; again after a change
	@tests/cluster/up.sh

cluster-down: ## stop the cluster and leave nothing behind
	@tests/cluster/down.sh

images: ## build localhost/sockeye-operator:dev and localhost/sockeye-agent:dev
	@deploy/images/build.sh

package: ## package the chart, with its SBOM, into target/chart
	@deploy/package.sh

sbom: ## write CycloneDX SBOMs: target/sbom/{operator,agent,cli,chart}.json
	@deploy/sbom.sh

release: ## build and sign a release of the commit that is checked out: KEY=cosign.key (docs/releases.md)
	@deploy/release/release.sh

publish: ## copy the release to REGISTRY
	@deploy/release/publish.sh

lint: ## check formatting, layout, clippy, dependencies, chart, shell scripts, names in docs, generated files
	@tests/lint/run.sh

crds: ## regenerate the chart's CustomResourceDefinitions from crds/src
	@mkdir -p target
	$(CARGO) run --quiet -p sockeye-crds --bin crdgen > target/crds.yaml
	cp target/crds.yaml deploy/chart/files/crds.yaml
	git --no-pager diff --stat -- deploy/chart/files/crds.yaml

example: ## regenerate the objects in deploy/examples from ebpf/programs
	@$(CARGO) run --quiet -p sockeye-ebpf --features fixtures --example inline
	git --no-pager diff --stat -- deploy/examples

reasons: ## regenerate docs/reasons.md of what the tests provoked that ran last
	@/usr/bin/python3 tests/lint/reasons.py make
	git --no-pager diff --stat -- docs/reasons.md docs/reasons.json

clean: cluster-down ## stop the cluster and remove what was built (not the cached tools in ~/.cache/sockeye)
	@$(CARGO) clean
