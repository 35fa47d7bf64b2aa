//! `annals append`: what becomes of lines.

mod command;

use std::fs::File;
use std::io::Write as _;

use command::{Log, Running};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

#[test]
fn what_is_read_can_be_appended_and_is_the_same() {
    let log = Log::new();
    let records = concat!(
        r#"{"value":"plain","key":"k"}"#,
        "\n",
        r#"{"value":null,"key":""}"#,
        "\n",
        r#"{"value":"","id":"n-1"}"#,
        "\n",
        r#"{"value":{"base64":"AP8K"},"key":{"base64":"/w=="},"id":{"base64":"gA=="}}"#,
        "\n",
        r#"{"value":"a\nb\u0000","timestamp":"2001-01-01T00:47:00.001Z","headers":[["a","1"],["a",null],["a",""],["b",{"base64":"/w=="}]]}"#,
        "\n",
    );
    let appended = log.run_with(&["append", "one", "--create"], records.as_bytes());
    assert_eq!(appended.ok().err, "annals: appended 5 records to one\n");
    let first = log.run(&["read", "one"]).ok();
    log.run_with(&["append", "two", "--create"], &first.out)
        .ok();
    let second = log.run(&["read", "two"]).ok();
    let records = |text: &str| -> Vec<serde_json::Value> {
        text.lines()
            .map(|line| {
                let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
                record["stored_at"].take();
                record
            })
            .collect()
    };
    assert_eq!(records(second.text()), records(first.text()));
    assert_eq!(first.text().lines().count(), 5);
    let line = first.text().lines().nth(3).unwrap();
    assert!(
        line.ends_with(
            r#""key":{"base64":"/w=="},"id":{"base64":"gA=="},"value":{"base64":"AP8K"}}"#
        ),
        "{line}"
    );
    assert!(
        first
            .text()
            .lines()
            .nth(1)
            .unwrap()
            .ends_with(r#""key":"","value":null}"#)
    );
}

#[test]
fn a_malformed_line_is_named_with_what_was_appended_and_how_to_go_on() {
    let log = Log::new();
    let input = "{\"value\":\"1\"}\n{\"value\":\"2\"}\n{\"value\":3}\n{\"value\":\"4\"}\n";
    let failed = log.run_with(&["append", "t", "--create"], input.as_bytes());
    failed.fails(
        1,
        &[
            "line 3:",
            "integer where",
            "lines 1 to 2 are stored",
            "--from-line 3",
        ],
    );
    assert_eq!(log.values("t"), "1\n2\n");
    let mended = input.replace('3', "\"3\"");
    log.run_with(&["append", "t", "--from-line", "3"], mended.as_bytes())
        .ok();
    assert_eq!(log.values("t"), "1\n2\n3\n4\n");
    log.run_with(&["append", "t", "--from-line", "9"], mended.as_bytes())
        .fails(1, &["no line 9"]);
    // Nothing is taken for an empty record.
    log.run_with(&["append", "t"], b"{\"value\":\"5\"}\n\n")
        .fails(1, &["line 2: it is empty", "line 1 is stored"]);
}

#[test]
fn lines_of_json_get_their_keys_and_headers() {
    let log = Log::new();
    std::fs::write(
        log.path().join("in"),
        "{\"o\":\"ABE\",\"n\": 1}\n{\"o\":\"DTW\"}\n{\"n\":1}\n",
    )
    .unwrap();
    let failed = log.run(&[
        "append", "t", "in", "--create", "--key", "o", "--header", "h=1=2",
    ]);
    failed.fails(1, &["line 3: it has no field \"o\" to be the key"]);
    let read = log.run(&["read", "t"]).ok();
    let first: serde_json::Value =
        serde_json::from_str(read.text().lines().next().unwrap()).unwrap();
    assert_eq!(first["key"], "ABE");
    assert_eq!(first["value"], "{\"o\":\"ABE\",\"n\": 1}");
    assert_eq!(first["headers"], serde_json::json!([["h", "1=2"]]));
    log.run(&["append", "t", "in", "--key", "o", "--format", "ndjson"])
        .fails(2, &["--format json"]);
    log.run(&["append", "t", "in"]).fails(
        1,
        &[
            "line 1: it is no record",
            "unknown field `o`",
            "--format json",
        ],
    );
    log.run(&["append", "t", "nowhere"])
        .fails(1, &["the file nowhere cannot be read"]);
    log.run(&["append", "u", "in", "--format", "lines"])
        .fails(3, &["no topic \"u\""]);
}

#[test]
fn a_slow_writers_lines_are_there_before_it_ends_and_a_second_writer_is_told_of_it() {
    let log = Log::new();
    log.run(&["topics", "create", "t"]).ok();
    let mut follower = log.start(&["follow", "t", "--from", "beginning", "--format", "value"]);
    let mut writer = log.start(&["append", "t", "--format", "lines"]);
    writer.type_in("one\n");
    assert_eq!(follower.line(), "one\n");
    let second = log.run_with(&["append", "t", "--format", "lines"], b"two\n");
    second.fails(
        1,
        &[
            &format!("the log is being written by pid {}", writer.pid()),
            "not stored: line 1",
            "--from-line 1",
        ],
    );
    // Reading needs no turn.
    assert_eq!(log.values("t"), "one\n");
    writer.type_in("two\n");
    assert_eq!(follower.line(), "two\n");
    writer.signal(Signal::INT);
    let ended = writer.finish();
    ended.fails(
        130,
        &["interrupted at line 3", "lines 1 to 2 are", "--from-line 3"],
    );
    assert_eq!(log.values("t"), "one\ntwo\n");
    follower.signal(Signal::INT);
    assert_eq!(follower.finish().code, 0);
}

#[test]
fn a_record_over_the_limit_is_named_and_those_before_it_are_there() {
    let log = Log::new();
    let mut input = b"a\nb\n".to_vec();
    input.resize(input.len() + (33 << 20), b'x');
    let failed = log.run_with(&["append", "t", "--create", "--format", "lines"], &input);
    failed.fails(
        1,
        &[
            "bytes, over limits.record_bytes of 33554432",
            "line 3",
            "shorten",
        ],
    );
    let there = log.values("t").lines().count();
    // Lines may share a batch, and a batch that cannot be stored whole is refused whole; which
    // lines these are is said.
    let go_on = format!("--from-line {}", there + 1);
    assert!(failed.err.contains(&go_on), "{failed:?}");
}

#[test]
fn who_sits_at_a_terminal_is_told_that_lines_are_waited_for() {
    let log = Log::new();
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let keyboard = openpt(flags).unwrap();
    grantpt(&keyboard).unwrap();
    unlockpt(&keyboard).unwrap();
    let terminal = ioctl_tiocgptpeer(&keyboard, flags).unwrap();
    let mut command = log.command(&["append", "t", "--create", "--format", "lines"]);
    let mut running = Running::of(command.stdin(terminal));
    let told = running.told();
    assert!(
        told.starts_with("annals: waiting for records from the terminal")
            && told.contains("Ctrl-D"),
        "{told}"
    );
    let end_of_input = "\u{4}";
    let mut keyboard = File::from(keyboard);
    write!(keyboard, "typed\n{end_of_input}").unwrap();
    assert_eq!(
        running.finish().ok().err,
        "annals: appended 1 records to t\n"
    );
    assert_eq!(log.values("t"), "typed\n");
    let piped = log.run_with(&["append", "t", "--format", "lines"], b"x\n");
    assert!(!piped.ok().err.contains("waiting"));
}

#[test]
fn what_it_is_doing_is_told_when_asked_for() {
    let log = Log::new();
    log.run(&["topics", "create", "t", "--dedupe", "1h"]).ok();
    let append = |more: &[&str], id| {
        let arguments = [&["append", "t"], more].concat();
        let record = format!("{{\"value\":\"x\",\"id\":\"{id}\"}}\n");
        log.run_with(&arguments, record.as_bytes()).ok().err
    };
    assert_eq!(append(&[], "1"), "annals: appended 1 records to t\n");
    let told = append(&["--verbose"], "2");
    assert!(told.contains("annals: debug: loaded ids topic=t"), "{told}");
}
