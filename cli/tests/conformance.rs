//! `annals conformance`.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

mod command;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::process::Command;

use command::{Log, Running};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

fn topics(log: &Log) -> String {
    log.run(&["topics", "list"]).ok().text().to_owned()
}

/// The prefix that it names.
fn prefix(told: &str) -> &str {
    let rest = told.split_once("called ").unwrap().1;
    rest.split_once('…').unwrap().0
}

#[test]
fn laws_are_judged_on_topics_of_their_own_which_go() {
    let log = Log::new();
    log.fill("mine", 3);
    let arguments = ["conformance", "--law", "range", "truthful"];
    let done = log.run(&arguments).ok();
    let rows: Vec<Vec<&str>> = done
        .text()
        .lines()
        .take(3)
        .map(|line| line.split_whitespace().take(3).collect())
        .collect();
    assert_eq!(rows[0], ["LAW", "STATE", "REACH"], "{done:?}");
    // In the order in which laws are shown; nobody could kill it.
    assert_eq!(rows[1][..2], ["truthful", "upheld"], "{done:?}");
    assert_eq!(rows[2], ["range", "upheld", "partial"], "{done:?}");
    assert!(done.text().contains("\nnot exercised: "), "{done:?}");
    assert!(prefix(&done.err).starts_with("annals-laws-"), "{done:?}");
    for said in [
        "annals: truthful: upheld (",
        "annals: range: upheld (",
        "annals: all topics made here are removed\n",
    ] {
        assert!(done.err.contains(said), "{said}: {done:?}");
    }
    assert_eq!(topics(&log), "mine\n");
    assert_eq!(log.values("mine"), "line 0\nline 1\nline 2\n");
}

#[test]
fn the_report_of_a_log_in_memory_has_all_of_it() {
    let log = Log::new();
    let path = log.path().join("report.json");
    // Those that take no second each; all of them take minutes by a real clock.
    let laws = ["durable", "range", "fenced", "fan_out", "rebuilt"];
    let arguments = ["conformance", "memory:", "--report", path.to_str().unwrap()];
    let done = log.run(&[&arguments[..], &["--law"], &laws].concat()).ok();
    let told: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(
        (&told["backend"], &told["depth"]),
        (&"memory".into(), &"quick".into())
    );
    let states = told["laws"].as_array().unwrap().iter().map(|law| {
        assert!(!law["cases"].as_array().unwrap().is_empty(), "{law}");
        (law["law"].as_str().unwrap(), law["state"].as_str().unwrap())
    });
    // A log in memory promises nothing across the end of its process.
    let expected = laws.map(|law| {
        (
            law,
            if law == "durable" {
                "refused"
            } else {
                "upheld"
            },
        )
    });
    assert_eq!(states.collect::<Vec<_>>(), expected, "{done:?}");
    assert!(!log.path().join("log").exists());
}

#[test]
fn a_page_needs_nothing_else() {
    let log = Log::new();
    let arguments = ["conformance", "memory:here", "--law", "range"];
    log.run(&[&arguments[..], &["--report", "page.html"]].concat())
        .ok();
    let page = fs::read_to_string(log.path().join("page.html")).unwrap();
    assert!(page.starts_with("<!doctype html>"), "{page}");
    assert!(page.contains("<td class=\"upheld\">upheld</td>"), "{page}");
    assert!(!page.contains("src=") && !page.contains("href="), "{page}");
}

#[test]
fn what_is_wrong_with_the_call_is_told_before_anything_is_done() {
    let log = Log::new();
    let run = |more: &[&str]| log.run(&[&["conformance"], more].concat());
    let unknown = run(&["--law", "gravity"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(unknown.err.contains("there are durable, truthful,"));
    assert_eq!(run(&["--report", "report.txt"]).code, 2);
    run(&["--report", "nowhere/report.json"]).fails(2, &["nowhere/report.json"]);
    let bare = Command::new(env!("CARGO_BIN_EXE_annals"))
        .arg("conformance")
        .env_remove("ANNALS_URL")
        .output()
        .unwrap();
    assert_eq!(bare.status.code(), Some(2));
    assert!(!log.path().join("log").exists());
}

#[test]
fn a_service_elsewhere_is_left_alone_until_somebody_says_yes() {
    let log = Log::new();
    let url = "kafka://app:s3cret@broker.example.com:9092";
    let refused = log.run(&["conformance", url]);
    refused.fails(
        2,
        &[
            "broker.example.com",
            "not on this machine",
            "annals-laws-",
            "--yes",
        ],
    );
    assert!(!refused.err.contains("s3cret"), "{refused:?}");
    // Then it is connected to, which this build cannot.
    let tried = log.run(&["conformance", url, "--yes"]);
    tried.fails(2, &["the scheme \"kafka\" is not yet available"]);
}

#[test]
fn at_a_terminal_it_asks() {
    let log = Log::new();
    for (answer, code, says) in [
        ("n\n", 1, "nothing was done"),
        ("\n", 1, "nothing was done"),
        ("yes\n", 2, "not yet available"),
    ] {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let keyboard = openpt(flags).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let terminal = ioctl_tiocgptpeer(&keyboard, flags).unwrap();
        let mut command = log.command(&["conformance", "kafka://broker.example.com"]);
        let running = Running::of(command.stdin(terminal));
        let mut keyboard = File::from(keyboard);
        write!(keyboard, "{answer}").unwrap();
        let done = running.finish();
        assert_eq!(done.code, code, "{done:?}");
        assert!(done.err.contains("Go on? [y/N]"), "{done:?}");
        assert!(done.err.contains(says), "{done:?}");
    }
}

#[test]
fn ctrl_c_ends_it_and_its_topics_go() {
    let log = Log::new();
    log.fill("mine", 1);
    let mut running = log.start(&["conformance", "--depth", "full"]);
    assert!(running.told().contains("the topics made here are called"));
    // The first law was judged, and the next one is at work.
    assert!(running.told().contains("durable: upheld"));
    running.signal(Signal::INT);
    let mut rest = Vec::new();
    let output = running.output.as_mut().unwrap();
    output.read_to_end(&mut rest).unwrap();
    let done = running.finish();
    assert_eq!(done.code, 130, "{done:?}");
    assert!(
        done.err
            .ends_with("annals: all topics made here are removed\n"),
        "{done:?}"
    );
    assert!(rest.is_empty());
    assert_eq!(topics(&log), "mine\n");
}
