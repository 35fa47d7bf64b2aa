use std::sync::mpsc;
use std::time::Duration;

use annals_core::Clock;

use super::*;

fn read(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], done as u64).unwrap() {
            0 => break,
            n => done += n,
        }
    }
    bytes
}

/// Every disk under the same test: what the trait promises.
fn behaves(disk: &dyn Disk, root: &Path) {
    let kind = |e: io::Error| e.kind();
    let dir = root.join("dir");
    disk.create_dir(&dir).unwrap();
    assert_eq!(
        disk.create_dir(&dir).map_err(kind),
        Err(io::ErrorKind::AlreadyExists)
    );
    let path = dir.join("file");
    let missing = disk.open(&path, OpenMode::Write).map_err(kind);
    assert_eq!(missing.err(), Some(io::ErrorKind::NotFound));
    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    let again = disk.open(&path, OpenMode::CreateNew).map_err(kind);
    assert_eq!(again.err(), Some(io::ErrorKind::AlreadyExists));
    assert!(disk.open(&dir, OpenMode::Read).is_err());

    assert_eq!(file.write_at(b"hello", 3).unwrap(), 5);
    assert_eq!(read(&*file), b"\0\0\0hello");
    file.reserve(0, 100).unwrap();
    assert!(matches!(file.len().unwrap(), 8 | 100));
    file.set_len(4).unwrap();
    file.set_len(6).unwrap();
    assert_eq!(read(&*file), b"\0\0\0h\0\0");
    file.sync_data().unwrap();
    disk.sync_dir(&dir).unwrap();
    let reader = disk.open(&path, OpenMode::Read).unwrap();
    assert!(reader.write_at(b"x", 0).is_err());
    assert_eq!(reader.read_at(&mut [0; 4], 6).unwrap(), 0);

    let other = dir.join("other");
    disk.open(&other, OpenMode::CreateNew).unwrap();
    disk.rename(&path, &other).unwrap();
    assert_eq!(
        disk.list(&dir).unwrap(),
        [DirEntry {
            name: "other".to_owned(),
            dir: false
        }]
    );
    assert_eq!(read(&*disk.open(&other, OpenMode::Read).unwrap()).len(), 6);
    assert!(disk.remove(&dir).is_err());
    let moved = root.join("moved");
    disk.rename(&dir, &moved).unwrap();
    disk.remove(&moved.join("other")).unwrap();
    assert_eq!(read(&*reader).len(), 6, "an open file outlives its name");
    disk.remove(&moved).unwrap();
    assert_eq!(
        disk.list(&moved).map_err(kind),
        Err(io::ErrorKind::NotFound)
    );

    let lock = root.join("lock");
    let held = disk.lock(&lock, "pid 7").unwrap().unwrap();
    let refused = disk.lock(&lock, "pid 8").unwrap().unwrap_err();
    assert_eq!(refused.owner, "pid 7");
    let look = disk.open(&lock, OpenMode::Read).unwrap();
    assert!(look.is_held().unwrap());
    drop(held);
    assert!(!look.is_held().unwrap());
    let held = disk.lock(&lock, "me").unwrap().unwrap();
    let refused = disk.lock(&lock, "pid 8").unwrap().unwrap_err();
    assert_eq!(refused.owner, "me");
    drop(held);
    watches(disk, root);

    let path = root.join("held");
    let one = disk.open(&path, OpenMode::CreateNew).unwrap();
    let two = disk.open(&path, OpenMode::Read).unwrap();
    assert!(!two.is_held().unwrap());
    one.hold().unwrap();
    assert!(two.is_held().unwrap() && two.is_held().unwrap());
    one.free().unwrap();
    assert!(!two.is_held().unwrap());
    one.hold().unwrap();
    drop(one);
    assert!(
        !two.is_held().unwrap(),
        "an opening that ends holds nothing"
    );
}

fn watches(disk: &dyn Disk, root: &Path) {
    let path = root.join("watched");
    assert!(disk.watch(&path, Arc::new(|| {})).is_err());
    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    let wait = Duration::from_secs(20);
    let watch = |path: &Path| {
        let (tx, rx) = mpsc::channel();
        let wake = move || {
            let _ = tx.send(());
        };
        (disk.watch(path, Arc::new(wake)).unwrap(), rx)
    };
    let (one, first) = watch(&path);
    let (_two, second) = watch(&path);
    file.write_at(b"x", 0).unwrap();
    first.recv_timeout(wait).unwrap();
    second.recv_timeout(wait).unwrap();
    drop(one);
    // A dropped watch lets go of its wake.
    let last = std::iter::from_fn(|| Some(first.recv_timeout(wait))).find_map(Result::err);
    assert_eq!(last, Some(mpsc::RecvTimeoutError::Disconnected));
    while second.try_recv().is_ok() {}
    file.write_at(b"y", 0).unwrap();
    second.recv_timeout(wait).unwrap();
    // A directory tells of its entries, a lock file of its release.
    let (_dir, entries) = watch(root);
    disk.remove(&path).unwrap();
    entries.recv_timeout(wait).unwrap();
    let lock = root.join("lock");
    let held = disk.lock(&lock, "me").unwrap().unwrap();
    let (_lock, released) = watch(&lock);
    while released.try_recv().is_ok() {}
    drop(held);
    released.recv_timeout(wait).unwrap();
}

#[test]
fn the_real_disk_behaves() {
    let root = tempfile::tempdir().unwrap();
    let disk = RealDisk::default();
    behaves(&disk, root.path());
    assert_eq!(disk.boot(), RealDisk::default().boot());
}

#[test]
fn the_disk_in_memory_behaves() {
    let clock = Clock::moved(Timestamp::from_millis(7));
    let disk = MemoryDisk::new(clock.clone());
    behaves(&disk, Path::new(""));
    clock.advance(Duration::from_millis(3));
    assert_eq!(disk.now().as_millis(), 10);
}

#[test]
fn the_faulty_disk_behaves_until_it_is_told_otherwise() {
    let disk = FaultyDisk::new(Clock::system());
    behaves(&disk, Path::new("/"));
    assert_eq!(disk.faults().fired(), 0);
}

#[test]
fn polling_wakes_too() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("f");
    std::fs::write(&path, "a").unwrap();
    let (tx, rx) = mpsc::channel();
    let wake = move || {
        let _ = tx.send(());
    };
    let watch = watch::poll(&path, Arc::new(wake)).unwrap();
    for _ in 0..3 {
        rx.recv_timeout(Duration::from_secs(20)).unwrap();
    }
    drop(watch);
    // The poller lets go of it at its next look.
    while rx.recv_timeout(Duration::from_secs(20)).is_ok() {}
}

#[test]
fn faults_fire_where_and_when_they_are_planned() {
    let disk = FaultyDisk::new(Clock::system());
    let faults = disk.faults();
    let a = disk.open(Path::new("a.seg"), OpenMode::CreateNew).unwrap();
    let b = disk.open(Path::new("b"), OpenMode::CreateNew).unwrap();
    faults.inject(
        Fault::new(Call::Write)
            .on(".seg")
            .skip(1)
            .times(2)
            .errno(28),
    );
    b.write_at(b"x", 0).unwrap();
    a.write_at(b"x", 0).unwrap();
    for _ in 0..2 {
        let error = a.write_at(b"x", 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(28));
    }
    a.write_at(b"x", 0).unwrap();
    assert_eq!(faults.fired(), 2);
    assert_eq!(faults.calls(Call::Write), 5);
    faults.inject(Fault::new(Call::Write).short(3));
    assert_eq!(a.write_at(b"abcdef", 0).unwrap(), 3);
    faults.inject(Fault::new(Call::Reserve).unsupported());
    assert_eq!(a.reserve(0, 9).unwrap(), Reserved::Unsupported);
    faults.inject(Fault::new(Call::Open));
    assert!(disk.open(Path::new("b"), OpenMode::Read).is_err());
    assert_eq!(faults.fired(), 5);
    faults.cut();
    assert!(a.write_at(b"x", 0).is_err() && disk.list(Path::new("")).is_err());
}

#[test]
fn a_full_disk_writes_short_then_not_at_all_but_into_what_is_reserved() {
    let disk = FaultyDisk::new(Clock::system());
    let a = disk.open(Path::new("a"), OpenMode::CreateNew).unwrap();
    let b = disk.open(Path::new("b"), OpenMode::CreateNew).unwrap();
    a.reserve(0, 100).unwrap();
    disk.faults().room(Some(10));
    assert_eq!(b.write_at(&[1; 16], 0).unwrap(), 10);
    let full = b.write_at(&[1], 10).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(a.write_at(&[2; 100], 0).unwrap(), 100);
    b.set_len(4).unwrap();
    let failed = a.reserve(100, 50).unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
    assert_eq!(
        a.len().unwrap(),
        106,
        "a failed reservation extends all the same"
    );
    a.set_len(100).unwrap();
    disk.remove(Path::new("b")).unwrap();
    a.reserve(100, 10).unwrap();
}

#[test]
fn a_kill_keeps_the_cache_and_a_power_loss_what_was_synced() {
    let disk = FaultyDisk::new(Clock::system());
    let root = Path::new("");
    let path = Path::new("f");
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    file.write_at(&[1; 2048], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(root).unwrap();
    file.write_at(&[2; 2048], 0).unwrap();
    file.write_at(&[3; 10], 2048).unwrap();
    let _lock = disk.lock(Path::new("lock"), "me").unwrap().unwrap();

    let killed = disk.after_kill();
    assert_eq!(killed.boot(), disk.boot());
    let seen = read(&*killed.open(path, OpenMode::Read).unwrap());
    assert_eq!(seen, [vec![2; 2048], vec![3; 10]].concat());
    assert!(killed.lock(Path::new("lock"), "next").unwrap().is_ok());

    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        // The kill before the power loss made nothing durable.
        let lost = if seed % 2 == 0 { &disk } else { &killed }.after_power_loss(seed);
        assert_ne!(lost.boot(), disk.boot());
        let bytes = read(&*lost.open(path, OpenMode::Read).unwrap());
        assert!(matches!(bytes.len(), 2048 | 2058));
        for sector in bytes[..2048].chunks(512) {
            assert!(
                sector == [1; 512] || sector == [2; 512],
                "torn inside a sector"
            );
        }
        let again = disk.after_power_loss(seed);
        if seed % 2 == 0 {
            assert_eq!(read(&*again.open(path, OpenMode::Read).unwrap()), bytes);
        }
        seen.insert(bytes);
    }
    // All or nothing, torn in every way, with and without the length.
    assert!(seen.len() > 20, "{} different crashes", seen.len());
    assert!(seen.contains(&vec![1; 2048]));
    assert!(seen.contains(&[vec![2; 2048], vec![3; 10]].concat()));
}

#[test]
fn entries_need_their_directory_synced() {
    let disk = FaultyDisk::new(Clock::system());
    let dir = Path::new("d");
    disk.create_dir(dir).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    let file = disk.open(&dir.join("new"), OpenMode::CreateNew).unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    let there = |disk: &FaultyDisk| disk.open(&dir.join("new"), OpenMode::Read).is_ok();
    let kept = (0..50)
        .filter(|seed| there(&disk.after_power_loss(*seed)))
        .count();
    assert!((1..50).contains(&kept), "{kept}");
    disk.sync_dir(dir).unwrap();
    assert!((0..50).all(|seed| there(&disk.after_power_loss(seed))));
    disk.rename(&dir.join("new"), &dir.join("newer")).unwrap();
    disk.sync_dir(dir).unwrap();
    assert!(!(0..50).any(|seed| there(&disk.after_power_loss(seed))));
}

#[test]
fn a_failed_sync_loses_the_data_and_later_ones_lie() {
    let disk = FaultyDisk::new(Clock::system());
    let path = Path::new("f");
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    file.write_at(b"data", 0).unwrap();
    disk.faults().inject(Fault::new(Call::Sync).errno(28));
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(read(&*file), b"data");
    for seed in 0..20 {
        let lost = disk.after_power_loss(seed);
        assert_eq!(read(&*lost.open(path, OpenMode::Read).unwrap()), [0; 4]);
    }
}

#[test]
fn a_history_gives_the_crash_after_each_change() {
    let disk = FaultyDisk::new(Clock::system());
    disk.record();
    let path = Path::new("f");
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    file.write_at(b"ab", 0).unwrap();
    file.sync_data().unwrap();
    let acknowledged = disk.recorded();
    file.write_at(b"cd", 0).unwrap();
    let history = disk.history();
    assert_eq!(history.len(), 5);
    let mut moments = history.moments();
    let mut seen = Vec::new();
    loop {
        let bytes = |disk: FaultyDisk| disk.open(path, OpenMode::Read).ok().map(|f| read(&*f));
        seen.push(bytes(moments.after_kill()));
        if moments.at() >= acknowledged {
            let left = bytes(moments.after_power_loss(3)).unwrap();
            assert!(left == b"ab" || left == b"cd");
        }
        if !moments.step() {
            break;
        }
    }
    let some = |bytes: &[u8]| Some(bytes.to_vec());
    assert_eq!(
        seen,
        [
            None,
            some(b""),
            some(b""),
            some(b"ab"),
            some(b"ab"),
            some(b"cd")
        ]
    );
}

#[test]
fn what_is_removed_and_may_come_back_keeps_its_number() {
    let disk = FaultyDisk::new(Clock::system());
    let (old, new) = (Path::new("old"), Path::new("new"));
    disk.open(old, OpenMode::CreateNew).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    disk.remove(old).unwrap();
    let killed = disk.after_kill();
    killed.create_dir(new).unwrap();
    let again = killed.after_kill();
    assert!(again.list(new).unwrap().is_empty());
    let seen = (0..50).map(|seed| again.after_power_loss(seed));
    let seen: std::collections::BTreeSet<Vec<(String, bool)>> = seen
        .map(|disk| {
            let entries = disk.list(Path::new("")).unwrap();
            entries.into_iter().map(|e| (e.name, e.dir)).collect()
        })
        .collect();
    let one = |name: &str, dir| (name.to_owned(), dir);
    assert!(seen.contains(&vec![one("old", false)]));
    assert!(
        seen.iter()
            .flatten()
            .all(|e| *e == one("old", false) || *e == one("new", true))
    );
}
