#![doc = include_str!("../README.md")]

mod admin;
mod append;
mod backend;
mod config;
pub mod disk;
mod error;
mod groups;
mod index;
pub mod log;
mod memory;
mod read;
mod retention;
mod root;
pub mod slot;
mod trim;
mod verify;

use annals_core::{Address, Bus, Result};

pub use backend::{Builder, Embedded};
pub use config::{Config, Place};
pub use groups::Groups;
pub use log::verify::{Unfit, Verified};
pub use memory::{Faults, Memory};

/// Connects to the log that an address names: `file:PATH`, `memory:` or `memory:NAME`, with the
/// options of [`Config`].
///
/// Its calls need a tokio runtime with time enabled (`Builder::enable_time`, or `enable_all`): they
/// are `Config` outside a runtime, and panic in one without time.
///
/// # Errors
/// `Config`, saying what is wrong with the address. Whether the directory can be used is seen by
/// the first call that does.
pub fn connect(address: &Address) -> Result<Bus> {
    Ok(Bus::new(Builder::new(Config::of(address)?).build()?))
}
