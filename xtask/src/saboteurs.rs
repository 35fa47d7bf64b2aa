//! `cargo xtask saboteurs`: every saboteur by every law.

use std::fs;

use anyhow::{Context, Result, bail};

use annals_conformance::saboteur::{self, Kill};
use annals_conformance::{Settings, law, report};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which saboteurs; all when none is named.
    names: Vec<String>,
    /// Say why each law caught each saboteur.
    #[arg(long)]
    why: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut saboteurs = saboteur::all();
    if let Some(unknown) = arguments
        .names
        .iter()
        .find(|name| saboteurs.iter().all(|saboteur| saboteur.name != **name))
    {
        bail!("there is no saboteur {unknown}");
    }
    if !arguments.names.is_empty() {
        saboteurs.retain(|saboteur| arguments.names.iter().any(|name| name == saboteur.name));
    }
    let settings = Settings::from_env().map_err(anyhow::Error::msg)?;
    let laws = law::all();
    let kills = saboteur::matrix(&saboteurs, &laws, &settings);
    for kill in &kills {
        println!("{}", line(kill));
        if arguments.why {
            for (law, why) in kill.killed_by.iter().zip(&kill.why) {
                println!("    {law}: {why}");
            }
        }
    }
    let folder = report::directory();
    fs::create_dir_all(&folder)?;
    fs::write(
        folder.join("saboteurs.json"),
        serde_json::to_vec_pretty(&kills)?,
    )
    .context("writing saboteurs.json")?;
    let free: Vec<&str> = kills
        .iter()
        .filter(|k| k.survived)
        .map(|k| k.saboteur.as_str())
        .collect();
    let idle: Vec<&str> = laws
        .iter()
        .map(law::Law::name)
        .filter(|law| !kills.iter().any(|kill| kill.killed_by == [*law]))
        .collect();
    println!(
        "{} saboteurs, {} caught",
        kills.len(),
        kills.len() - free.len()
    );
    if !idle.is_empty() && arguments.names.is_empty() {
        println!("laws that are nobody's only killer: {}", idle.join(", "));
    }
    if !free.is_empty() {
        bail!("these were not caught: {}", free.join(", "));
    }
    Ok(())
}

/// One row: the saboteur, the laws that caught it, the one that was meant to in brackets.
fn line(kill: &Kill) -> String {
    let caught: Vec<String> = kill
        .killed_by
        .iter()
        .map(|law| {
            if *law == kill.law {
                format!("[{law}]")
            } else {
                law.clone()
            }
        })
        .collect();
    let caught = match (kill.survived, kill.acted) {
        (false, _) => caught.join(" "),
        (true, 0) => "SURVIVED: it never got to do its harm".into(),
        (true, _) => "SURVIVED".into(),
    };
    format!(
        "{:<40} {:<8} {caught}",
        kill.saboteur,
        format!("{:?}", kill.shape).to_lowercase()
    )
}
