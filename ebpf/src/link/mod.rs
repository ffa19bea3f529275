//! Links an object for a kernel.
