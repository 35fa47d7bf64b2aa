//! Tells whether a backend keeps the laws of annals, and proves that it can tell.
//!
//! | room | holds |
//! | --- | --- |
//! | [`law`] | the laws: one sentence each, the cases that show it, how it may be refused |
//! | [`check`] | what is found in a history |
//! | [`history`] | what the clients of a run did and saw |
//! | [`harness`] | how a backend is reached, disturbed and measured |
//! | [`runner`] | runs a law, with a limit to its time; settings from the environment |
//! | [`verdict`] | what came of it: upheld, refused or violated, with evidence |
//! | [`report`] | verdicts as files, and as a table |
//! | [`saboteur`] | backends broken on purpose, each of which a law must catch |
//! | [`tap`] | a wrapper with a hook at each crossing, which saboteurs and harnesses are made of |
//! | [`models`] | three backends in memory that the laws are tried on |
//!
//! A backend's tests are two lines, see [`laws!`]; the crate's README has a guide, "Write a
//! backend", with a complete small one.

pub mod check;
pub mod harness;
pub mod history;
pub mod law;
mod macros;
pub mod models;
pub mod report;
pub mod runner;
pub mod saboteur;
pub mod tap;
pub mod trial;
pub mod verdict;
pub mod workload;

pub use harness::{Cannot, Disturb, Harness, Meter, Time, Want};
pub use law::Law;
pub use runner::Settings;
pub use verdict::{State, Verdict};

/// Every snippet of the guide compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod guide {}
