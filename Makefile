# Each target installs what it needs, names it first, and ends with one clear line.
# As root, or as a user who may use sudo.

.PHONY: help demo test e2e e2e-kube nightly bench

help:
	@echo "make demo     a real Ignite ring, first plain, then inside the mesh: half a minute once it is built"
	@echo "make test     everything that CI runs: lints, unit, property and namespace tests, Ignite scenarios, Kubernetes"
	@echo "make e2e      the Ignite scenarios alone"
	@echo "make e2e-kube the scenarios on a real Kubernetes: yours (KUBECONFIG), kind, or one of plain processes"
	@echo "make nightly  make test with every scenario on every version of Ignite, and the long ones, an hour of fuzzing among them"
	@echo "             (PARTS='scenarios kube' for parts of it: scripts/test.sh names them)"
	@echo "make bench    Ringmail beside HAProxy, Envoy and plain relays on this machine, then under Ignite, and the report: some four hours"

demo:
	@scripts/demo.sh

test:
	@scripts/test.sh test

e2e:
	@scripts/test.sh e2e

e2e-kube:
	@scripts/test.sh e2e-kube

nightly:
	@scripts/test.sh nightly $(PARTS)

bench:
	@scripts/bench.sh $(BENCH)
