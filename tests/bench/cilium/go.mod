module sockeye.dev/tests/bench/cilium

go 1.26.6

require github.com/cilium/ebpf v0.22.0

require golang.org/x/sys v0.43.0 // indirect
