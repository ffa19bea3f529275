//! Fetch: the revisions that this node is to run, and the bytes of objects. Does IO; decides nothing but what is selected.
//!
//! | module | from |
//! |---|---|
//! | [`cluster`] | the Kubernetes API; bytes by [`objects`], pods by [`pods`] |
//! | [`folder`] | manifests in a folder, as the kubelet reads static pods |
//! | [`listed`] | a file that lists pods, beside such a folder |

pub mod cluster;
pub mod folder;
pub mod listed;
pub mod objects;
pub mod pods;
