# Thin lines over the programs that do the work; --help of each tells more:
#   go run ./image --help
#   go run ./qemu --help

BOARD ?= malta
DEBUG ?=
EXAMPLE ?= ftp

# By the environment (docs/HACKING.md) they last longer.
BADDAYS := TestPowerCut|TestUpgradePowerCut|TestBadBlocks|TestSlowDisk|TestThrownClock|TestFlappingLink|TestMemoryTaken|TestEndedAndStopped|TestJobsEndedAndStopped|TestThreeDays

# A failure anywhere in a pipe is one.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

.PHONY: help quick lab test baddays check image boards images keys bench size release setup

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile
	@echo "lab and image take BOARD=NAME (malta by default), image also DEBUG=1, which adds a shell"

# Many tests wait more than they compute: four packages at a time.
quick: export PATH := $(PATH):/usr/sbin:/sbin
quick: ## what to run after each change: a minute; no root, no QEMU, no kernel builds
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	go vet ./...
	go vet -tags small ./...
	go test -tags small -run NoTLS ./console
	go tool staticcheck ./...
	go test -p 4 -v ./... | awk -f .ci/quick.awk

lab: ## the manual's FTP example (EXAMPLE=home: a household) on BOARD in QEMU, then its console; needs root
	go run ./image setup --lab $(BOARD)
	go run ./image build $(BOARD)
	go run ./qemu lab --example $(EXAMPLE) $(BOARD)

# So many at a time, as here too most wait: for timers, for packets that do not come, for a machine that restarts, for their turn (loads
# in qemu). Vet has seen the code in check.
test: ## everything that CI runs: checks, unit tests, end-to-end tests; half an hour, needs root
	go run ./image setup --lab all
	$(MAKE) check
	go test -tags e2e -race -vet=off -p 12 $$(go list ./... | grep -v -e /qemu$$ -e /image$$)
	@echo "./image is tested beside ./qemu; what it says follows at the end"
	@mkdir -p out
	setsid go test -tags e2e -race -vet=off -timeout 75m -v ./image > out/image-tests.log 2>&1 & image=$$!; trap "kill -- -$$image 2> /dev/null || :" EXIT; failed=; \
	go test -tags e2e -race -vet=off -parallel 7 -timeout 75m -v ./qemu || failed=1; \
	wait $$image || failed=1; cat out/image-tests.log; test -z "$$failed"

# One board after the other: each of these boards has a test's whole machine.
baddays: export PATH := $(PATH):/usr/sbin:/sbin
baddays: ## the bad days of docs/HACKING.md on four boards, with figures: the power cut, the link that flaps, ...; needs root
	go run ./image setup --lab malta maltael virt-arm64 pc
	failed=; for board in malta maltael virt-arm64 pc; do \
		POSTERN_TEST_BOARDS=$$board POSTERN_TEST_BAD_DAY_BOARD=$$board go test -tags e2e -count=1 -parallel 3 -timeout 12h -v ./qemu -run '^($(BADDAYS))$$' || failed="$$failed $$board"; \
	done; test -z "$$failed" || { echo "failed on$$failed"; exit 1; }

check: ## formatting, go.mod, vet, staticcheck, actionlint
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	go mod tidy -diff
	go vet ./...
	go vet -tags small ./...
	go test -tags small -run NoTLS ./console
	go tool staticcheck ./...
	go tool actionlint

image: ## build BOARD's image into out/BOARD
	go run ./image setup $(BOARD)
	go run ./image build $(if $(DEBUG),--debug) $(BOARD)

boards: ## list the boards, and how each was verified
	go run ./image boards

images: ## build the images of all boards
	go run ./image setup all
	go run ./image build all

keys: ## make the keys that images are signed with, once; a build makes them too
	go run ./image keys

bench: ## measure socksd and dnsd beside other servers, and the boards in QEMU; needs root
	go run ./image setup --lab
	go run ./image build
	go run ./socks/bench
	go run ./dns/bench
	go run ./qemu bench

size: ## build, and show where the bytes of the images are
	go run ./image setup
	go run ./image size

release: ## build what is committed for all boards, and make a folder of it for a web server: out/release
	go run ./image setup all
	go run ./image release all

setup: ## install what all of this takes, Debian packages and a few of npm; needs root
	go run ./image setup --lab all
