//! The embedded log of annals.

pub mod disk;
pub mod slot;
