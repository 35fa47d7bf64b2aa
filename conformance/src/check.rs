//! What is found in a [`history`](crate::history): pure functions of what clients saw.
