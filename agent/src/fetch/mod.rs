//! Fetch: the revisions that this node is to run, and the bytes of objects. Does IO; decides nothing but what is selected.
//!
//! | module | from |
//! |---|---|
//! | [`cluster`] | the Kubernetes API; bytes by [`objects`] |
//! | [`folder`] | manifests in a folder, as the kubelet reads static pods |

pub mod cluster;
pub mod folder;
pub mod objects;
