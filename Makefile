# Thin lines over the programs that do the work; --help of each tells more:
#   go run ./image --help
#   go run ./qemu --help

BOARD ?= malta
DEBUG ?=

# A failure anywhere in a pipe is one.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

.PHONY: quick lab test image boards size setup bench check keys images

# After each change: no root, no QEMU, no kernel builds. Says which tests it leaves out.
quick: export PATH := $(PATH):/usr/sbin:/sbin
quick:
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	go vet ./...
	go test -v ./... | awk -f .ci/quick.awk

# The manual's FTP example, on BOARD in QEMU. Needs root.
lab:
	go run ./image setup --lab $(BOARD)
	go run ./image build $(BOARD)
	go run ./qemu lab $(BOARD)

# Everything: formatting, vet, staticcheck, unit tests and the end-to-end tests.
test:
	go run ./image setup --lab all
	$(MAKE) check
	go test -tags e2e -race $$(go list ./... | grep -v -e /qemu$$ -e /image$$)
	go test -tags e2e -race -parallel 3 -timeout 75m -v ./qemu
	go test -tags e2e -race -timeout 30m -v ./image

check:
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	go mod tidy -diff
	go vet ./...
	go tool staticcheck ./...
	go tool actionlint

image:
	go run ./image setup $(BOARD)
	go run ./image build $(if $(DEBUG),--debug) $(BOARD)

boards:
	go run ./image boards

# Every board's image, those that QEMU does not model too.
images:
	go run ./image setup all
	go run ./image build all

# The keys that images are signed with: once, and kept. A build makes them too.
keys:
	go run ./image keys

bench:
	go run ./image setup --lab
	go run ./image build
	go run ./socks/bench
	go run ./qemu bench

size:
	go run ./image setup
	go run ./image size

setup:
	go run ./image setup --lab all
