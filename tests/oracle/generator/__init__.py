"""Small BPF programs in C, by seed. Nothing in them makes sense to a kernel; all of it must be linked as libbpf does."""
