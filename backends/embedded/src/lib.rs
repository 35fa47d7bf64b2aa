//! The embedded log of annals.

pub mod config;
pub mod disk;
mod error;
mod groups;
pub mod log;
pub mod slot;

pub use groups::Groups;
