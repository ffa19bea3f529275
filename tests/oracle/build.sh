#!/usr/bin/env bash
# tests/oracle/build.sh: builds `record` with libbpf's archive, and prints its path.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

libbpf=$(tests/oracle/libbpf.sh)
# What libbpf asks of the machine, but for the object's file.
asked=(syscall feat_supported uname open64 fopen64 gzopen64 faccessat)
mkdir -p target/oracle
gcc -std=gnu11 -Wall -Wextra -Werror -O1 -g -I "$libbpf/include" tests/oracle/record/*.c "$(find "$libbpf" -name libbpf.a)" \
    "${asked[@]/#/-Wl,--wrap=}" -lelf -lz -o target/oracle/record.new
mv target/oracle/record.new target/oracle/record
echo "$PWD/target/oracle/record"
