//! sock-redirect.
