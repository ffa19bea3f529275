#!/usr/bin/env bash
# tests/oracle/build.sh record|probe: builds a program here with libbpf's archive, and prints its path.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

libbpf=$(tests/oracle/libbpf.sh)
case $1 in
record)
    # What libbpf asks of the machine, but for the object's file.
    asked=(syscall feat_supported uname open64 fopen64 gzopen64 faccessat setrlimit64)
    options=("${asked[@]/#/-Wl,--wrap=}")
    ;;
# It runs in a machine that has nothing else.
probe) options=(-static) ;;
esac
mkdir -p target/oracle
gcc -std=gnu11 -Wall -Wextra -Werror -O1 -g -I "$libbpf/include" "${options[@]}" \
    tests/oracle/glibc.c tests/oracle/"$1"/*.c "$(find "$libbpf" -name libbpf.a)" -lelf -lz -o "target/oracle/$1.$$"
mv "target/oracle/$1.$$" "target/oracle/$1"
echo "$PWD/target/oracle/$1"
