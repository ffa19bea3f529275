//! `Features`: what a kernel can do, as far as it changes what an object becomes. The names are libbpf's
//! (`enum kern_feature_id`), in lower case and without `FEAT_`.

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The features of a kernel that the linker asks for.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Features {
            $($(#[$doc])* pub $name: bool,)*
        }

        impl Features {
            /// The features of a kernel that has all of them.
            pub const ALL: Self = Self { $($name: true),* };

            /// The names of all features.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// Sets a feature by its name. Returns whether it is one that matters here.
            pub fn set(&mut self, name: &str, has: bool) -> bool {
                match name {
                    $(stringify!($name) => self.$name = has,)*
                    _ => return false,
                }
                true
            }
        }
    };
}

features! {
    /// It takes BTF (4.18).
    btf,
    /// It takes BTF of functions (5.0).
    btf_func,
    /// It takes BTF of global functions (5.6).
    btf_global_func,
    /// It takes BTF of data sections (5.2).
    btf_datasec,
    /// It takes BTF of floating-point numbers (5.13).
    btf_float,
    /// It takes BTF of tags of declarations (5.16).
    btf_decl_tag,
    /// It takes BTF of tags of types (5.17).
    btf_type_tag,
    /// It takes BTF of enums of 64 bits (6.0).
    btf_enum64,
    /// It takes BTF of data sections whose name begins with `?` (6.8).
    btf_qmark_datasec,
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
