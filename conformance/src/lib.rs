//! Tells whether a backend keeps the laws of annals. So far it holds the three model backends
//! that the laws are tried on: see [`models`].

pub mod models;
