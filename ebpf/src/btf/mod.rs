//! `Btf`: types in BPF Type Format (Documentation/bpf/btf.rst), an object's or the kernel's, borrowed from their bytes.
//! No IO.
//!
//! [`Btf::parse`] refuses what libbpf refuses (`btf_new`) and nothing more. Everything after it is bounded for every
//! input: an access outside a section gives nothing, a walk from type to type ends after a fixed number of steps.
//!
//! | module | noun |
//! |---|---|
//! | [`Btf`] | the types of a section |
//! | `kind`, `types` | a type and its parts |
//! | `validate` | reads a section, and checks it as libbpf does |
//! | `resolve` | a type without modifiers, its size and alignment |
//! | [`kernel`] | the kernel's types by name |
//! | [`fit`](mod@fit) | an object's types made fit for a kernel |
//! | [`ext`] | the records in `.BTF.ext` |
//! | `value_type` | types as the encoder of values needs them |

#[expect(clippy::module_inception, reason = "the file of the noun that the module is named after")]
mod btf;
mod error;
pub mod ext;
pub mod fit;
pub mod kernel;
mod kind;
mod names;
mod resolve;
mod types;
mod validate;
pub(crate) mod value_type;

pub use self::{
    btf::Btf,
    error::BtfError,
    ext::Ext,
    kernel::KernelBtf,
    kind::Kind,
    types::{Array, Enumerator, Int, MAX_NAME, Member, Param, SectionVar, Strings, Type},
};
