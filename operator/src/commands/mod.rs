//! Commands that run once and end. The chart runs them as Jobs.
//!
//! | command | when | module |
//! |---|---|---|
//! | `crds` | before an installation or upgrade | [`crds`] |
//! | `uninstall` | before an uninstallation | [`uninstall`], which uses [`delete_programs`] and [`leftovers`] |

pub mod crds;
pub mod delete_programs;
pub mod leftovers;
pub mod uninstall;
