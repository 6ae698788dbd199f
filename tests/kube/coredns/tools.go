//go:build tools

// Package tools names the command that scripts/kube-binaries.sh builds, so that go.mod and go.sum pin it.
package tools

import _ "github.com/coredns/coredns"
