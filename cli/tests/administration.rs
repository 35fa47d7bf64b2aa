//! `annals topics`, `groups`, `lag` and `verify`, and what is wrong with a call.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

mod command;

use command::Log;

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn topics_come_and_go() {
    let log = Log::new();
    for wrong in [
        &["topics", "list"][..],
        &["topics", "delete", "b"],
        &["read", "b"],
        &["lag", "b", "g"],
        &["append", "b"],
        &["verify"],
    ] {
        log.run(wrong).fails(3, &["there is no log in", "/log"]);
    }
    std::fs::create_dir(log.path().join("log")).unwrap();
    let none = log.run(&["topics", "list"]).ok();
    assert_eq!(
        (none.text(), none.err.as_str()),
        ("", "annals: there are no topics\n")
    );
    let create = [
        "topics",
        "create",
        "b",
        "--retention",
        "30d",
        "--dedupe",
        "10m",
        "--group",
        "g",
    ];
    assert_eq!(log.run(&create).ok().err, "annals: created b\n");
    assert!(log.run(&create).ok().err.contains("was there already"));
    log.run(&["topics", "create", "b", "--retention", "31d"])
        .fails(1, &["its retention is Age(2592000s)"]);
    log.run(&["topics", "create", "c", "--partitions", "2"])
        .fails(1, &["one partition"]);
    log.run(&["topics", "create", "c", "--kind", "compacted"])
        .fails(1, &["none called \"compacted\""]);
    log.run(&["topics", "create", "a"]).ok();
    assert_eq!(log.run(&["topics", "list"]).ok().text(), "a\nb\n");
    assert_eq!(
        log.run(&["topics", "list", "--json"]).ok().text(),
        "[\"a\",\"b\"]\n"
    );
    let described = log.run(&["topics", "describe", "b", "--json"]).ok();
    let described = json(described.text());
    assert_eq!(described["topic"], "b");
    assert_eq!(described["capabilities"]["durability"]["Is"], "Fsynced");
    assert_eq!(described["partitions"][0]["open"], true);
    let table = log.run(&["topics", "describe", "b"]).ok();
    let row = table
        .text()
        .lines()
        .find(|line| line.starts_with("durability"))
        .unwrap();
    assert!(row.ends_with("Fsynced"), "{row}");
    log.run(&["topics", "delete", "b"]).ok();
    for gone in ["delete", "describe"] {
        log.run(&["topics", gone, "b"]).fails(3, &["no such topic"]);
    }
}

#[test]
fn groups_come_and_go_and_their_lag_is_told() {
    let log = Log::new();
    log.fill("t", 3);
    assert!(
        log.run(&["groups", "list", "t"])
            .ok()
            .err
            .contains("no groups")
    );
    log.run(&["groups", "create", "t", "all"]).ok();
    log.run(&["groups", "create", "t", "new", "--from", "latest"])
        .ok();
    assert!(
        log.run(&["groups", "create", "t", "all"])
            .ok()
            .err
            .contains("stays where it is")
    );
    let listed = log.run(&["groups", "list", "t", "--json"]).ok();
    let listed = json(listed.text());
    assert_eq!(listed[0]["group"], "all");
    assert_eq!(
        (listed[0]["records"].as_u64(), listed[1]["records"].as_u64()),
        (Some(3), Some(0))
    );
    let table = log.run(&["groups", "list", "t"]).ok();
    assert!(table.text().starts_with("GROUP") && table.text().lines().count() == 3);
    assert!(
        log.run(&["lag", "t", "all"])
            .ok()
            .text()
            .contains("0          3")
    );
    let cursor = log.run(&["read", "t", "--limit", "1"]).ok().cursor();
    let lag = log.run(&["lag", "t", "--cursor", &cursor, "--json"]).ok();
    assert_eq!(json(lag.text())[0]["records"], 2);
    log.run(&["lag", "t", "nobody"])
        .fails(3, &["there is no group \"nobody\""]);
    assert_eq!(log.run(&["lag", "t"]).code, 2);
    log.run(&["groups", "delete", "t", "all"]).ok();
    log.run(&["groups", "delete", "t", "all"])
        .fails(3, &["all"]);
}

#[test]
fn a_group_behind_the_end_of_a_restored_log_is_told_and_hides_no_other() {
    let log = Log::new();
    log.fill("t", 2);
    log.run(&["groups", "create", "t", "a"]).ok();
    let copy = |from: &str, to: &str| {
        let (from, to) = (log.path().join(from), log.path().join(to));
        let copied = std::process::Command::new("cp")
            .arg("-rT")
            .args([from, to])
            .status();
        assert!(copied.unwrap().success());
    };
    copy("log", "older");
    log.run_with(&["append", "t", "--format", "lines"], b"3")
        .ok();
    log.run(&["groups", "create", "t", "b", "--from", "latest"])
        .ok();
    copy("log/t/groups", "older/t/groups");
    let url = format!("file:{}/older", log.path().display());
    let on = |arguments: &[&str]| log.run(&[arguments, &["--url", &url]].concat());
    let listed = on(&["groups", "list", "t"]).ok();
    assert!(listed.err.contains("group \"b\": "), "{listed:?}");
    assert!(listed.err.contains("behind the end"), "{listed:?}");
    let behind: Vec<_> = listed
        .text()
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>())
        .collect();
    assert_eq!(behind, [["a", "2"], ["b", "-"]]);
    on(&["lag", "t", "b"]).fails(2, &["behind the end"]);
}

#[test]
fn a_flipped_bit_is_named_by_topic_and_position_and_what_is_before_it_is_read() {
    let log = Log::new();
    log.run(&["verify"]).fails(3, &["there is no log in"]);
    log.fill("whole", 3);
    log.fill("t", 3);
    log.run_with(&["append", "t", "--format", "lines"], b"broken\n")
        .ok();
    let verified = log.run(&["verify"]).ok();
    assert_eq!(
        verified
            .text()
            .lines()
            .filter(|line| line.ends_with("whole"))
            .count(),
        2
    );

    let segment = log.path().join("log/t/00000000000000000000.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes
        .windows(6)
        .position(|window| window == b"broken")
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let verified = log.run(&["verify"]);
    verified.fails(
        4,
        &[
            "\"t\"",
            "a stored record is broken in 00000000000000000000.seg at position 0@3",
        ],
    );
    assert_eq!(
        verified
            .text()
            .lines()
            .filter(|line| line.ends_with("BROKEN"))
            .count(),
        1
    );
    assert_eq!(log.run(&["verify", "whole"]).ok().text().lines().count(), 2);
    let read = log.run(&["read", "t", "--format", "value"]);
    assert_eq!((read.code, read.text()), (4, "line 0\nline 1\nline 2\n"));
    assert!(read.err.contains("0@3"), "{read:?}");
    log.run(&["verify", "nowhere"]).fails(3, &["no such topic"]);
}

#[test]
fn an_index_that_is_broken_is_told_and_is_no_loss() {
    let log = Log::with("?segment=64KiB");
    log.fill("t", 3000);
    let index = log.path().join("log/t/00000000000000000000.idx");
    std::fs::write(&index, "no index").unwrap();
    let verified = log.run(&["verify"]).ok();
    assert!(verified.text().contains("whole"), "{verified:?}");
    for word in ["00000000000000000000.idx is broken", "no record is lost"] {
        assert!(verified.err.contains(word), "{verified:?}");
    }
}

#[test]
fn a_broken_place_of_a_small_file_is_not_called_whole() {
    let log = Log::new();
    log.fill("t", 3);
    log.fill("other", 3);
    log.run(&["groups", "create", "t", "billing"]).ok();
    let cursor = log.path().join("log/t/groups/billing/cursor");
    let state = || {
        let verified = log.run(&["verify"]);
        let states: Vec<_> = verified.text().lines().skip(1).map(words).collect();
        let of = |topic| {
            let row = states.iter().find(|row| row.first() == Some(&topic));
            row.unwrap()
                .iter()
                .skip(1)
                .copied()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert!(of("other").ends_with(" whole"), "{verified:?}");
        (of("t"), verified.code, verified.err)
    };
    for (file, said) in [
        (
            log.path().join("log/t/tail"),
            "a place of the file tail is broken",
        ),
        (cursor, "the cursor of group \"billing\" cannot be read"),
    ] {
        let whole = std::fs::read(&file).unwrap();
        let broken: Vec<u8> = whole
            .iter()
            .map(|byte| if *byte == 0 { 0 } else { byte ^ 1 })
            .collect();
        std::fs::write(&file, broken).unwrap();
        let (row, code, err) = state();
        // All records are there: they are counted, and the state says that something is not.
        assert!(
            row.starts_with("1 3 ") && row.ends_with(" damaged"),
            "{row}"
        );
        assert_eq!(code, 4, "{err}");
        assert!(err.contains(said), "{err}");
        std::fs::write(&file, whole).unwrap();
        let (row, code, _) = state();
        assert!(row.ends_with(" whole") && code == 0, "{row}");
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn wrong_calls_say_what_would_do_and_show_no_password() {
    let log = Log::new();
    let run = |url: &str, arguments: &[&str]| {
        let done = log
            .command(arguments)
            .env("ANNALS_URL", url)
            .output()
            .unwrap();
        let err = String::from_utf8(done.stderr).unwrap();
        (done.status.code().unwrap(), err)
    };
    let (code, err) = run("", &["topics", "list"]);
    assert_eq!(code, 2);
    assert!(
        err.contains("--url URL") && err.contains("ANNALS_URL"),
        "{err}"
    );
    let (code, err) = run("memory:", &["topics", "list"]);
    assert_eq!(code, 2);
    assert!(err.contains("would end with this command"), "{err}");
    let secret = "kafka://me:s3cret@host/x?token=s3cret";
    for arguments in [
        &["topics", "list"][..],
        &["verify"],
        &["--help"],
        &[secret],
        &["read", "t", "--url", secret],
        &["read", "t", "--from", secret],
        &["topics", "create", secret],
        &["topics", "list", "--yrl", secret],
    ] {
        let (code, err) = run(secret, arguments);
        assert!(!err.contains("s3cret"), "{arguments:?}: {err}");
        assert_eq!(code, if arguments == ["--help"] { 0 } else { 2 }, "{err}");
    }
    let help = log.run(&["--help"]).ok();
    assert!(!help.text().contains("file:/") && help.text().contains("Exit codes"));
    for wrong in [
        &["read", "t", "--from", "yesterday"][..],
        &["lag", "t", "--cursor", "xx"],
        &["topics", "create", "a/b"],
        &["append", "t", "--header", "x"],
    ] {
        assert_eq!(log.run(wrong).code, 2, "{wrong:?}");
    }
}
