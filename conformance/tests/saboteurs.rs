//! Every saboteur is caught by the law that is meant to catch it. The whole matrix, every saboteur by
//! every law, is `cargo xtask saboteurs`.
#![allow(clippy::print_stdout, reason = "a test may")]

use annals_conformance::{Settings, saboteur};

#[test]
fn every_saboteur_is_caught_by_the_law_that_is_meant_to() {
    let kills = saboteur::meant(&saboteur::all(), &Settings::default());
    let mut free = Vec::new();
    for kill in kills {
        println!(
            "{} ({}): acted {} times, {:?}",
            kill.saboteur, kill.law, kill.acted, kill.why
        );
        if kill.survived {
            free.push(kill.saboteur);
        }
    }
    assert!(free.is_empty(), "these were not caught: {free:?}");
}
