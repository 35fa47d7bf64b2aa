//! The embedded log of annals.

pub mod config;
pub mod disk;
pub mod slot;
