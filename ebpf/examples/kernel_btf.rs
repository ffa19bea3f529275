fn main() {
    let bytes = std::fs::read(std::env::args().nth(1).unwrap_or("/sys/kernel/btf/vmlinux".into())).unwrap();
    for _ in 0..10 {
        let b: sockeye_ebpf::btf::kernel::Bytes = Box::new(bytes.clone());
        let t = std::time::Instant::now();
        let k = sockeye_ebpf::btf::KernelBtf::new(b).unwrap();
        let e = t.elapsed();
        let t = std::time::Instant::now();
        let c = k.candidates(b"task_struct___x", sockeye_ebpf::btf::Kind::Struct);
        let e2 = t.elapsed();
        let t = std::time::Instant::now();
        let f = k.symbol(b"bpf_sock_destroy", sockeye_ebpf::btf::Kind::Func);
        println!("{e:?} {k:?} {c:?} {e2:?} {f:?} {:?}", t.elapsed());
    }
}
