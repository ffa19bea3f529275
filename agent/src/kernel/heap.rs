//! The process's heap.

/// Makes all threads allocate from one heap. Call it before any thread is started.
///
/// By default glibc gives each thread a heap of its own, which grows page by page, with an mprotect(2) each time: 391
/// of them while the controller's thread finds 1,100 links. And what one thread frees no other one uses.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt(3) has no safe form")]
pub fn share() {
    // SAFETY: mallopt(3) sets a parameter of the allocator, and nothing else runs yet. Where it fails, nothing changes.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Does nothing: other C libraries have one heap.
#[cfg(not(target_env = "gnu"))]
pub const fn share() {}
