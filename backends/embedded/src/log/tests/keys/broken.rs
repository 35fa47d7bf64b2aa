//! Indexes that are missing, broken, stale or wrong, too large, or cut short by a crash.

use super::*;
use crate::disk::{Call, Fault, FaultyDisk};
use crate::log::verify::{Unfit, verify};

/// Whatever an index file holds, the answers are those of the segment; and it is made anew.
#[test]
fn no_index_is_trusted_over_its_segment() {
    let here = place(MemoryDisk::new(clock()), TINY);
    let mut writer = made(&here, Dedupe::Off);
    let (mut seed, mut model) = (Seed(4), Model::new());
    fill(&mut writer, &mut seed, 4, &mut model);
    writer.topic().index_sealed().unwrap();
    let path = index_path(writer.topic(), 1);
    let right = bytes_of(&here.disk, &path);
    let other = bytes_of(&here.disk, &index_path(writer.topic(), 2));
    // Another topic of the same records.
    let twin = {
        let mut there = place(MemoryDisk::new(clock()), TINY);
        there.root = PathBuf::new();
        create(
            &*there.disk,
            &there.root,
            &there.name,
            TopicId([8; 16]),
            Settings::default(),
        )
        .unwrap();
        let mut writer = Writer::open(&there).unwrap();
        fill(&mut writer, &mut Seed(4), 4, &mut Model::new());
        writer.topic().index_sealed().unwrap();
        bytes_of(&there.disk, &path)
    };
    assert_eq!(twin.len(), right.len());
    // A whole block, of a segment that knows none of these keys.
    let segments = writer.topic().read_segments().len();
    while writer.topic().read_segments().len() < segments + 2 {
        ask(
            &mut writer,
            Record::new("z".repeat(500)).key("z"),
            Condition::None,
        );
        model.push((Some("z".to_owned()), "z".repeat(500)));
    }
    writer.topic().index_sealed().unwrap();
    let strange = bytes_of(&here.disk, &index_path(writer.topic(), segments));
    let block = 4096..8192;
    let mut swapped = right.clone();
    swapped[block.clone()].copy_from_slice(&strange[block]);
    let mut broken: Vec<(String, Vec<u8>)> = vec![
        ("another segment's".to_owned(), other),
        ("another topic's".to_owned(), twin),
        ("a block of another".to_owned(), swapped),
        ("empty".to_owned(), Vec::new()),
    ];
    for at in (0..right.len()).step_by(97) {
        let mut flipped = right.clone();
        flipped[at] ^= 1 << (at % 8);
        broken.push((format!("flipped at {at}"), flipped));
    }
    for len in (0..right.len()).step_by(512) {
        broken.push((format!("cut to {len}"), right[..len].to_vec()));
        let mut holed = right.clone();
        holed[len..right.len().min(len + 512)].fill(0);
        broken.push((format!("a hole at {len}"), holed));
    }
    for (what, bytes) in broken {
        overwrite(&here.disk, &path, &bytes);
        judge(&foreign(&here, u32::MAX), &model, &what);
        let verified = verify(&foreign(&here, u32::MAX)).unwrap();
        let stale = what.starts_with("another");
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        // A hole in what is zeros anyway changes nothing.
        let unfit = (bytes != right).then_some(Unfit { file, stale });
        assert_eq!(verified.unfit, Vec::from_iter(unfit), "{what}");
        let held = bytes_of(&here.disk, &path);
        assert_eq!(
            held, bytes,
            "{what}: a reader in another process writes nothing"
        );
        let mut writer = Writer::open(&here).unwrap();
        judge_conditions(&mut writer, &mut model, &what);
        judge(writer.topic(), &model, &what);
        assert_eq!(bytes_of(&here.disk, &path), right, "{what}: made anew");
        let verified = verify(writer.topic()).unwrap();
        assert_eq!(verified.unfit, [], "{what}");
        assert!(verified.indexes > 1, "{what}");
    }
}

/// An index with valid checksums that names the wrong places: what a fault in the program that
/// wrote it would leave.
#[test]
fn an_index_that_lies_is_found_out_by_the_records() {
    let here = place(MemoryDisk::new(clock()), TINY);
    let mut writer = made(&here, Dedupe::Off);
    let (mut seed, mut model) = (Seed(6), Model::new());
    // Known to the first segment alone.
    ask(&mut writer, Record::new("o").key("only"), Condition::None);
    model.push((Some("only".to_owned()), "o".to_owned()));
    fill(&mut writer, &mut seed, 3, &mut model);
    writer.topic().index_sealed().unwrap();
    let path = index_path(writer.topic(), 0);
    for (what, by) in [
        ("record", (0, 0, 8)),
        ("frame", (0, 8, 0)),
        ("both", (0, 64, 64)),
        ("position", (1000, 0, 0)),
    ] {
        let lie = writer.topic().lie(0, by);
        overwrite(&here.disk, &path, &lie);
        judge(&foreign(&here, u32::MAX), &model, what);
        overwrite(&here.disk, &path, &lie);
        let mut writer = Writer::open(&here).unwrap();
        let only = writer.topic().newest_of(b"only", &mut 1).unwrap();
        assert_eq!(only, Some(0), "{what}");
        judge_conditions(&mut writer, &mut model, what);
        judge(writer.topic(), &model, what);
        assert_ne!(bytes_of(&here.disk, &path), lie);
    }
}

#[test]
fn a_broken_record_is_told_behind_those_before_it() {
    for indexed in [true, false] {
        let disk = FaultyDisk::new(clock());
        let here = place(disk.clone(), TINY);
        let mut writer = made(&here, Dedupe::Off);
        let (mut seed, mut model) = (Seed(7), Model::new());
        fill(&mut writer, &mut seed, 3, &mut model);
        if indexed {
            writer.topic().index_sealed().unwrap();
        }
        let path = writer.topic().read_segments()[&0].path.clone();
        let of_k1 = of_key(&model, "k1", 0, model.len());
        // The third record of the key, in its value.
        let (position, value) = &of_k1[2];
        let segment = bytes_of(&here.disk, &path);
        let hit = segment
            .windows(value.len())
            .rposition(|w| w == value.as_bytes())
            .unwrap();
        let file = here.disk.open(&path, OpenMode::Write).unwrap();
        file.write_at(b"?", hit as u64).unwrap();
        let reader = foreign(&here, u32::MAX);
        for topic in [writer.topic(), &reader] {
            let mut scan = scan(topic, "k1", 0, StopAt::Never);
            for _ in 0..2 {
                let (records, end) = drain(&mut scan, ROOM);
                let error = end.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                assert!(
                    error.to_string().contains(&format!("0@{position}")),
                    "{error}"
                );
                assert!(records.is_empty() || seen(&records) == of_k1[..2]);
            }
        }
        // Behind the segment nothing is in doubt, and a key that is not in it can be asked for.
        let behind = usize::try_from(writer.topic().sealed()[1].0).unwrap();
        assert_eq!(
            read(writer.topic(), "k1", behind),
            of_key(&model, "k1", behind, model.len())
        );
        if indexed {
            assert_eq!(read(&reader, "nobody", 0), []);
        }
    }
}

#[test]
fn memory_is_bounded_and_what_was_let_go_is_found_again() {
    let here = place(MemoryDisk::new(clock()), TINY);
    let mut writer = made(&here, Dedupe::Off);
    let (mut seed, mut model) = (Seed(8), Model::new());
    fill(&mut writer, &mut seed, 30, &mut model);
    writer.topic().index_sealed().unwrap();
    let whole = {
        judge(writer.topic(), &model, "all");
        writer.topic().keys.bytes()
    };
    assert!(whole > 2_000, "{whole}");
    for topic in [writer.topic(), &foreign(&here, u32::MAX)] {
        topic.keys.keep_at_most(200);
        for _ in 0..2 {
            judge(topic, &model, "little");
            assert!(topic.keys.bytes() <= 200);
        }
    }
    judge_conditions(&mut writer, &mut model, "little");
}

/// What a full or failing disk does to an index does nothing to the log.
#[test]
fn an_index_that_cannot_be_written_is_kept_in_memory() {
    let disk = FaultyDisk::new(clock());
    let here = place(disk.clone(), TINY);
    let mut writer = made(&here, Dedupe::Off);
    let (mut seed, mut model) = (Seed(9), Model::new());
    fill(&mut writer, &mut seed, 4, &mut model);
    for call in [Call::Open, Call::Write, Call::Rename] {
        for end in [".tmp", ".idx"] {
            disk.faults()
                .inject(Fault::new(call).on(end).times(100).errno(28));
        }
        judge(writer.topic(), &model, "refused");
        judge_conditions(&mut writer, &mut model, "refused");
        disk.faults().clear();
        assert_eq!(indexes(&here.disk), 0, "{call:?}");
        writer = Writer::open(&here).unwrap();
    }
    writer.topic().index_sealed().unwrap();
    assert_eq!(indexes(&here.disk), writer.topic().sealed().len());
    judge(writer.topic(), &model, "written");
}

/// Once a log is closed, be it after a failure, its directory may be somebody else's.
#[test]
fn a_closed_log_writes_no_index_and_still_answers() {
    for fails in [false, true] {
        let disk = FaultyDisk::new(clock());
        let here = place(disk.clone(), TINY);
        let mut writer = made(&here, Dedupe::Off);
        let (mut seed, mut model) = (Seed(11), Model::new());
        fill(&mut writer, &mut seed, 3, &mut model);
        if fails {
            disk.faults().inject(Fault::new(Call::Sync).on(".seg"));
            let lost = ask(&mut writer, Record::new("v"), Condition::None);
            assert!(matches!(lost, Outcome::Unknown(_)));
        }
        writer.close().unwrap();
        writer.topic().index_sealed().unwrap();
        judge(writer.topic(), &model, "closed");
        assert_eq!(indexes(&here.disk), 0);
    }
}

/// Killed, or without power, at each step of writing indexes and removing them.
#[test]
fn no_crash_makes_a_wrong_answer() {
    let disk = FaultyDisk::new(clock());
    let here = place(disk.clone(), TINY);
    let mut writer = made(&here, Dedupe::Off);
    let (mut seed, mut model) = (Seed(10), Model::new());
    fill(&mut writer, &mut seed, 3, &mut model);
    disk.record();
    writer.topic().index_sealed().unwrap();
    fill(&mut writer, &mut seed, 4, &mut model);
    judge_conditions(&mut writer, &mut model, "recorded");
    writer.topic().index_sealed().unwrap();
    let before = writer.topic().sealed()[1].0;
    writer.topic().trim(before).unwrap();
    let history = disk.history();
    let mut moments = history.moments();
    let mut steps = 0;
    loop {
        let moment = moments.at();
        let losses = (0..6).map(|loss| {
            (
                moments.after_power_loss(seed.next()),
                format!("power lost at {moment} ({loss})"),
            )
        });
        let crashed: Vec<_> = losses
            .chain([(moments.after_kill(), format!("killed at {moment}"))])
            .collect();
        for (disk, what) in crashed {
            let here = place(disk, TINY);
            let kept = |topic: &Arc<Topic>| {
                let end = topic.end();
                for key in (0..7).map(name) {
                    let from = usize::try_from(end.earliest).unwrap();
                    let to = usize::try_from(end.next).unwrap();
                    assert_eq!(
                        read(topic, &key, from),
                        of_key(&model, &key, from, to),
                        "{what}"
                    );
                }
            };
            kept(&Topic::open(&here).unwrap());
            let mut writer = Writer::open(&here).unwrap();
            assert!(writer.topic().end().next >= 1);
            kept(writer.topic());
            writer.topic().index_sealed().unwrap();
            assert_eq!(indexes(&here.disk), writer.topic().sealed().len(), "{what}");
            kept(&Topic::open(&here).unwrap());
            // Positions that a loss took back are given again, to other keys.
            let next = writer.topic().end().next;
            let none = Condition::KeyAt {
                key: "new".into(),
                last: None,
            };
            assert_eq!(
                at(&ask(&mut writer, Record::new("n").key("new"), none)),
                next,
                "{what}"
            );
            let more = writer.topic().read_segments().len() + 1;
            fill(&mut writer, &mut Seed(1), more, &mut Model::new());
            assert_eq!(
                read(writer.topic(), "new", usize::try_from(next).unwrap()),
                [(next, "n".to_owned())],
                "{what}"
            );
        }
        steps += 1;
        if !moments.step() {
            break;
        }
    }
    assert!(steps > 20, "{steps}");
}

#[test]
fn a_group_waits_for_one_missing_index_at_most() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(clock()));
    let here = Place {
        disk: Arc::clone(&disk),
        ..place(MemoryDisk::new(clock()), TINY)
    };
    let mut writer = made(&here, Dedupe::Off);
    fill(&mut writer, &mut Seed(3), 6, &mut Model::new());
    assert_eq!(indexes(&disk), 0);
    let key_at = |key: &'static str| Condition::KeyAt {
        key: Bytes::from_static(key.as_bytes()),
        last: None,
    };
    // No segment has these keys, so each must be asked.
    for made in 1..=5 {
        let asks = vec![
            (Record::new("a").into(), key_at("none"), None),
            (Record::new("b").into(), Condition::None, None),
            (Record::new("c").into(), key_at("none either"), None),
        ];
        let outcomes = together(&mut writer, asks).concat();
        assert_eq!(indexes(&disk), made);
        let blocked = |outcome: &Outcome| {
            let error = outcome.error();
            error.is_some_and(|e| e.kind() == ErrorKind::Blocked && e.is_retryable())
        };
        assert_eq!(blocked(&outcomes[0]), made < 5, "{made}: {:?}", outcomes[0]);
        at(&outcomes[1]);
        assert_eq!(blocked(&outcomes[2]), made < 5, "{made}: {:?}", outcomes[2]);
    }
}
