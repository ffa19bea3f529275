//! Execute: the one interpreter of [`Step`](crate::plan::Step)s. Does IO.
//!
//! The executor takes the steps in the order given and stops at the first failure. It then undoes in reverse what it
//! has made visible, so that a revision that fails leaves what was there before.
//!
//! Failures at pods' cgroups are confined: there are many such cgroups, and each may vanish at any time. A cgroup that
//! is gone is skipped. If an attachment to a pod's cgroup fails, everything that this run attached to that cgroup is
//! undone, and the other steps go on.
//!
//! | file | what |
//! |---|---|
//! | `execution` | the input and the result: `Execution`, `Executed` |
//! | `executor` | the executor of one plan, on one home |
//! | `progress` | what has been done so far, and how to undo it |
//! | `run` | executes the steps, and decides what a failure means |
//! | `load` | loads the object, and pins its maps and programs |
//! | `attach` | links to cgroups, and updates |
//! | `attach_map` | attachments to maps |
//! | `trial` | notes on the revision in effect and on its trial |
//! | `write` | writes notes and pins |
//! | `draining` | notes on the sockets in maps, takes sockets out, keeps maps for them |
//! | `remove` | removes links, pins, and at last the home |
//! | `undo` | undoes steps |

mod attach;
mod attach_map;
mod draining;
mod execution;
mod executor;
mod load;
mod progress;
mod remove;
mod run;
mod trial;
mod undo;
mod write;

pub use self::{
    execution::{Executed, Execution},
    executor::Executor,
};
