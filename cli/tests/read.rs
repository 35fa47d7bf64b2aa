//! `annals read` and `annals follow`: bounds, formats, and ends that lose nothing.

mod command;

use std::io::Read as _;

use command::{Log, behind, number};
use rustix::process::Signal;

#[test]
fn a_range_is_read_and_the_cursor_goes_on_from_it() {
    let log = Log::new();
    log.fill("t", 5);
    let first = log
        .run(&["read", "t", "--limit", "2", "--format", "value"])
        .ok();
    assert_eq!(first.text(), "line 0\nline 1\n");
    let after = format!("after:{}", first.cursor());
    let through = format!(
        "through:{}",
        log.run(&["read", "t", "--limit", "4"]).ok().cursor()
    );
    let next = log
        .run(&[
            "read", "t", "--from", &after, "--until", &through, "--format", "value",
        ])
        .ok();
    assert_eq!(next.text(), "line 2\nline 3\n");
    let rest = log
        .run(&["read", "t", "--from", &after, "--format", "value"])
        .ok();
    assert_eq!(rest.text(), "line 2\nline 3\nline 4\n");
    let end = format!("after:{}", rest.cursor());
    assert_eq!(log.run(&["read", "t", "--from", &end]).ok().text(), "");
    assert_eq!(log.run(&["read", "t", "--from", "latest"]).ok().text(), "");
    assert_eq!(
        log.run(&["read", "t", "--from", "since:-1d"])
            .ok()
            .text()
            .lines()
            .count(),
        5
    );
    assert_eq!(
        log.run(&["read", "t", "--until", "before:1000"])
            .ok()
            .text(),
        ""
    );

    log.fill("other", 1);
    log.run(&["read", "other", "--from", &after])
        .fails(2, &["the cursor belongs to topic \"t\""]);
    log.run(&["read", "nowhere"])
        .fails(3, &["there is no topic \"nowhere\""]);
}

#[test]
fn one_key_is_read() {
    let log = Log::new();
    let input = "{\"value\":\"1\",\"key\":\"a\"}\n{\"value\":\"2\",\"key\":\"b\"}\n{\"value\":\"3\",\"key\":\"a\"}\n";
    log.run_with(&["append", "t", "--create"], input.as_bytes())
        .ok();
    for key in [["--key", "a"], ["--key-base64", "YQ=="]] {
        let read = log
            .run(&["read", "t", "--format", "value", key[0], key[1]])
            .ok();
        assert_eq!(read.text(), "1\n3\n");
    }
}

#[test]
fn values_that_lines_cannot_tell_are_told_of() {
    let log = Log::new();
    log.run_with(
        &["append", "t", "--create"],
        b"{\"value\":null}\n{\"value\":\"\"}\n",
    )
    .ok();
    let read = log.run(&["read", "t", "--format", "value"]).ok();
    assert_eq!(read.text(), "\n\n");
    assert!(
        read.err
            .contains("1 values are null or have a line end in them")
    );
    let table = log.run(&["read", "t", "--format", "table"]).ok();
    assert!(table.text().starts_with("POSITION") && table.text().contains("(null)"));
}

#[test]
fn a_closed_pipe_ends_it_quietly_with_the_cursor_behind_what_was_written() {
    let log = Log::new();
    log.fill("t", 50_000);
    let mut reading = log.start(&["read", "t"]);
    let mut seen = 0;
    for _ in 0..3 {
        seen = number(&reading.line());
    }
    drop(reading.output.take());
    let done = reading.finish().ok();
    assert_eq!(done.err.lines().count(), 1, "{done:?}");
    let written = behind(&done.cursor());
    assert!((seen..50_000 - 1).contains(&written), "{written}");
    // A reader of help and lists may go too.
    for arguments in [&["--help"][..], &["topics", "list"]] {
        let mut listing = log.start(arguments);
        drop(listing.output.take());
        assert_eq!(listing.finish().ok().err, "");
    }
}

#[test]
fn ctrl_c_ends_it_behind_a_whole_record_and_the_cursor_says_which() {
    let log = Log::new();
    log.fill("t", 50_000);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut reading = log.start(&["read", "t"]);
        let mut text = reading.line();
        // It cannot be done: the pipe holds less than there is.
        reading.signal(signal);
        let mut output = reading.output.take().unwrap();
        output.read_to_string(&mut text).unwrap();
        let done = reading.finish();
        assert_eq!(done.code, code);
        assert!(text.ends_with('\n'));
        let last = number(text.lines().last().unwrap());
        assert_eq!(behind(&done.cursor()), last);
        assert_eq!(text.lines().count() as u64, last + 1);
        let after = format!("after:{}", done.cursor());
        let rest = log.run(&["read", "t", "--from", &after]).ok();
        assert_eq!(number(rest.text().lines().next().unwrap()), last + 1);
    }
}

#[test]
fn a_follower_sees_records_at_once_and_ends_when_it_is_asked_to() {
    let log = Log::new();
    log.fill("t", 2);
    let mut follower = log.start(&["follow", "t", "--from", "beginning", "--format", "value"]);
    assert_eq!(follower.line(), "line 0\n");
    assert_eq!(follower.line(), "line 1\n");
    log.run_with(&["append", "t", "--format", "lines"], b"line 2\n")
        .ok();
    assert_eq!(follower.line(), "line 2\n");
    follower.signal(Signal::INT);
    let done = follower.finish().ok();
    assert_eq!(behind(&done.cursor()), 2);

    let bounded = log
        .run(&["follow", "t", "--from", "beginning", "--until", "end"])
        .ok();
    assert_eq!(bounded.text().lines().count(), 3);
    let limited = log
        .run(&["follow", "t", "--from", "beginning", "--limit", "1"])
        .ok();
    assert_eq!(behind(&limited.cursor()), 0);
}

#[test]
fn a_follower_whose_reader_goes_ends_although_nothing_comes() {
    let log = Log::new();
    log.fill("t", 1);
    let mut follower = log.start(&["follow", "t", "--from", "beginning"]);
    follower.line();
    drop(follower.output.take());
    let done = follower.finish().ok();
    assert_eq!(behind(&done.cursor()), 0);
}

#[test]
fn a_cursor_file_makes_runs_go_on() {
    let log = Log::new();
    log.fill("t", 3);
    let arguments = ["read", "t", "--format", "value", "--cursor-file", "place"];
    let first = log.run(&[&arguments[..], &["--limit", "2"]].concat()).ok();
    assert_eq!(first.text(), "line 0\nline 1\n");
    let saved = std::fs::read_to_string(log.path().join("place")).unwrap();
    assert_eq!(saved.trim_end(), first.cursor());
    assert_eq!(log.run(&arguments).ok().text(), "line 2\n");
    assert_eq!(log.run(&arguments).ok().text(), "");
    log.run_with(&["append", "t", "--format", "lines"], b"more\n")
        .ok();
    // A follower that is ended has saved too; the file says more than --from.
    let mut follower = log.start(&[
        "follow",
        "t",
        "--from",
        "beginning",
        "--cursor-file",
        "place",
    ]);
    assert_eq!(number(&follower.line()), 3);
    follower.signal(Signal::TERM);
    follower.finish().ok();
    assert_eq!(log.run(&arguments).ok().text(), "");
    std::fs::write(log.path().join("place"), "nonsense").unwrap();
    log.run(&arguments)
        .fails(2, &["the file place holds no cursor"]);
}

#[test]
fn records_that_are_gone_are_an_error_unless_they_are_accepted() {
    let log = Log::with("?segment=64KiB");
    log.run(&["topics", "create", "t", "--retention", "1B"])
        .ok();
    let line = format!("{}\n", "x".repeat(1_000));
    let lines = line.repeat(200);
    let earliest = || {
        let described = log.run(&["topics", "describe", "t", "--json"]).ok();
        let described: serde_json::Value = serde_json::from_str(described.text()).unwrap();
        described["details"]["earliest"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    while earliest() == 0 {
        log.run_with(&["append", "t", "--format", "lines"], lines.as_bytes())
            .ok();
    }
    let gap = log.run(&["read", "t"]);
    assert_eq!((gap.code, gap.text()), (4, ""));
    for says in ["are gone", "--over-gaps", "--from earliest"] {
        assert!(gap.err.contains(says), "{gap:?}");
    }
    let over = log.run(&["read", "t", "--over-gaps"]).ok();
    assert!(over.err.contains("are gone"));
    let kept = log.run(&["read", "t", "--from", "earliest"]).ok();
    assert_eq!(kept.text(), over.text());
    assert_eq!(number(kept.text().lines().next().unwrap()), earliest());
}

#[test]
fn ctrl_c_ends_it_although_nobody_takes_what_it_writes() {
    let log = Log::new();
    // As long as what a pipe takes in one step, so that it is full behind a whole record.
    let line = format!("{}\n", "x".repeat(4095));
    let lines = line.repeat(200);
    let append = ["append", "t", "--create", "--format", "lines"];
    log.run_with(&append, lines.as_bytes()).ok();
    let mut reading = log.start(&["read", "t", "--format", "value"]);
    let mut text = reading.line();
    let mut output = reading.output.take().unwrap();
    reading.signal(Signal::INT);
    let done = reading.finish();
    assert_eq!(done.code, 130);
    output.read_to_string(&mut text).unwrap();
    let written = text.lines().count() as u64;
    assert!(text.len().is_multiple_of(4096) && written < 60, "{written}");
    assert_eq!(behind(&done.cursor()) + 1, written);
}
