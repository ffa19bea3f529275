"""Small BPF programs in C, by seed. They make no sense to a kernel; a linker must treat them as libbpf does."""
