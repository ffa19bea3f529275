//! Commands that run once and end. The chart runs two of them as Jobs.
//!
//! | command | when | module |
//! |---|---|---|
//! | `crds` | before an installation or upgrade | [`crds`] |
//! | `uninstall` | before an uninstallation | [`uninstall`], which uses [`delete_programs`] and [`leftovers`] |
//! | `builtins` | by hand, to sign the programs that ship with sockeye | [`builtins`] |

pub mod builtins;
pub mod crds;
pub mod delete_programs;
pub mod leftovers;
pub mod uninstall;
