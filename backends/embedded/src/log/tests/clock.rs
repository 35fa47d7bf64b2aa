//! A clock that was set: what the page for operators says of it.

use std::time::Duration;

use super::*;
use crate::disk::FaultyDisk;

fn stamps(topic: &Arc<Topic>) -> Vec<i64> {
    let records = all(topic);
    records
        .iter()
        .map(|r| r.stored_at().unwrap().as_millis())
        .collect()
}

fn since(topic: &Arc<Topic>, millis: i64) -> Vec<String> {
    let time = Timestamp::from_millis(millis);
    let mut scan = Scan::since(Arc::clone(topic), time, StopAt::Never).unwrap();
    let (records, end) = drain(&mut scan, ROOM);
    assert_eq!(end.unwrap(), Fetch::CaughtUp);
    values(&records)
}

#[test]
fn a_clock_that_was_ahead_leaves_its_stamp_until_it_is_reached() {
    let disk = FaultyDisk::new(clock_at(1_000));
    put(&mut made(&place(disk.clone(), TINY), Dedupe::Off), "before");
    // Set forward, and an hour of appends later set right again.
    let disk = disk.after_kill_at(clock_at(9_000));
    put(
        &mut Writer::open(&place(disk.clone(), TINY)).unwrap(),
        "ahead",
    );
    let disk = disk.after_kill_at(clock_at(2_000));
    let mut writer = Writer::open(&place(disk.clone(), TINY)).unwrap();
    put(&mut writer, "right");
    let topic = Arc::clone(writer.topic());
    // Log time never goes back: it stands until the clock has passed it.
    assert_eq!(stamps(&topic), [1_000, 9_000, 9_000]);
    assert_eq!(since(&topic, 1_500), ["ahead", "right"]);
    assert_eq!(since(&topic, 9_001), [""; 0]);
    drop(writer);
    let disk = disk.after_kill_at(clock_at(9_500));
    let mut writer = Writer::open(&place(disk, TINY)).unwrap();
    put(&mut writer, "later");
    assert_eq!(stamps(writer.topic()), [1_000, 9_000, 9_000, 9_500]);
}

#[test]
fn a_clock_set_forward_ends_the_window_of_ids() {
    let window = Dedupe::Window(Duration::from_secs(60));
    let again = |by: i64| {
        let disk = FaultyDisk::new(clock_at(0));
        let record = || Record::new("v").id("n-1");
        let mut writer = made(&place(disk.clone(), TINY), window);
        assert_eq!(at(&ask(&mut writer, record(), Condition::None)), 0);
        let disk = disk.after_kill_at(clock_at(by));
        let mut writer = Writer::open(&place(disk, TINY)).unwrap();
        at(&ask(&mut writer, record(), Condition::None))
    };
    assert_eq!([again(50_000), again(61_000), again(-50_000)], [0, 1, 0]);
}
