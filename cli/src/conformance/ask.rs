//! Nothing is done to a service that is not on this machine before somebody says so.

use std::io::{IsTerminal as _, Write as _};
use std::net::IpAddr;

use annals::Address;

use crate::exit::Failure;
use crate::stop::Stop;

/// Whether what it leads to is on this machine: files, memory, and hosts that are all its own.
pub(super) fn is_here(address: &Address) -> bool {
    match (address.scheme(), address.hosts()) {
        ("file" | "memory", _) => true,
        (_, Some(hosts)) => hosts.split(',').all(is_loopback),
        (_, None) => false,
    }
}

/// A host, perhaps with its port.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let ip = name.parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Asks who sits at the terminal.
pub(super) async fn may_go_on(address: &Address, prefix: &str, stop: &Stop) -> Result<(), Failure> {
    let what = format!(
        "{address} is not on this machine; the suite makes topics called {prefix}… there, writes to them, reads them and removes them"
    );
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "{what}: say --yes if it may; nothing was done"
        )));
    }
    // Where nobody reads the question, nobody answers it.
    let _ = write!(std::io::stderr(), "annals: {what}. Go on? [y/N] ");
    let answer = stop.or(async {
        let reading = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|_| line)
        });
        let read = reading.await.map_err(Failure::failed)?;
        read.map_err(|e| Failure::failed(format!("no answer can be read: {e}")))
    });
    let answer = answer.await?.trim().to_ascii_lowercase();
    if matches!(answer.as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::failed("nothing was done"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_here() {
        let here = |url: &str| is_here(&url.parse().unwrap());
        for url in [
            "file:data",
            "memory:",
            "kafka://localhost:9092",
            "amqp://app:x@127.0.0.1",
            "kafka://127.0.0.2:1,[::1]:2,LOCALHOST",
        ] {
            assert!(here(url), "{url}");
        }
        for url in [
            "kinesis:eu-west-1",
            "kafka://",
            "kafka://localhost.example.com",
            "kafka://localhost:9092,broker:9092",
            "amqp://127.0.0.1.example.com",
            "amqp://10.0.0.1",
        ] {
            assert!(!here(url), "{url}");
        }
    }
}
