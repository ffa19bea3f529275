//! `Features`: what a kernel can do, as far as it changes what an object becomes. The names are libbpf's
//! (`enum kern_feature_id`), in lower case and without `FEAT_`.

use crate::btf::fit::BtfFeatures;

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The features of a kernel that the linker asks for.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Features {
            $($(#[$doc])* pub $name: bool,)*
            /// The kinds and flags of BTF that it takes.
            pub btf_kinds: BtfFeatures,
        }

        impl Features {
            /// The features of a kernel that has all of them.
            pub const ALL: Self = Self { $($name: true,)* btf_kinds: BtfFeatures::ALL };

            /// Sets a feature by its name. Returns whether it is one that matters here.
            pub fn set(&mut self, name: &str, has: bool) -> bool {
                let feature = match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => self.btf_kinds.by_name(name),
                };
                feature.map(|feature| *feature = has).is_some()
            }
        }
    };
}

features! {
    /// It takes BTF (4.18).
    btf,
    /// A process can map an array into its memory (5.5).
    array_mmap,
    /// It has `bpf_probe_read_kernel` (5.5).
    probe_read_kern,
    /// A program keeps maps that it does not refer to (5.9).
    prog_bind_map,
    /// The verifier knows the tag `arg:ctx` (6.8).
    arg_ctx_tag,
    /// A program can read the value given with its link (5.15).
    bpf_cookie,
    /// The kernel's system calls have wrappers (4.17, by processor).
    syscall_wrapper,
}
