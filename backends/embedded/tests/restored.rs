//! A log that was put back from an older copy, and cursors that are newer than it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail their test")]

use std::path::Path;
use std::time::Duration;

use annals_core::{Bus, Cursor, Error, ErrorKind, Group, Record, Start, Topic, Until};
use annals_embedded::Builder;

const GRACE: Duration = Duration::from_secs(20);

async fn orders(root: &Path) -> (Bus, Topic) {
    let bus = Bus::new(Builder::directory(root).build().unwrap());
    let topic = bus.topic("orders").create_if_missing().await.unwrap();
    (bus, topic)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn is_refused(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    for word in ["behind the end", "position 2, end 2", "older copy"] {
        assert!(error.to_string().contains(word), "{error}");
    }
}

async fn every_way(topic: &Topic, newer: &Cursor) {
    let start = || Start::After(newer.clone());
    is_refused(&topic.replay(start()).await.unwrap_err());
    is_refused(&topic.follow(start()).await.unwrap_err());
    let through = Until::Through(newer.clone());
    let replay = topic.replay(Start::Beginning).until(through);
    is_refused(&replay.await.unwrap_err());
    is_refused(&topic.lag(newer).await.unwrap_err());
    is_refused(&topic.group_lag("billing").await.unwrap_err());
    is_refused(&topic.subscribe("new").start(start()).await.unwrap_err());
    let admin = topic.bus().admin().unwrap();
    let group = Group::new("another").unwrap();
    let made = admin.create_group(topic.name(), &group, Some(start()));
    is_refused(&made.await.unwrap_err());
}

#[tokio::test]
async fn a_cursor_behind_the_end_is_refused_instead_of_passing_over_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (live, older) = (dir.path().join("live"), dir.path().join("older"));
    let (bus, topic) = orders(&live).await;
    topic.append(Record::new("0")).await.unwrap();
    topic.append(Record::new("1")).await.unwrap();
    let end = topic.end().await.unwrap();
    bus.close(GRACE).await.unwrap();
    copy(&live, &older);

    let (bus, topic) = orders(&live).await;
    topic.append(Record::new("2")).await.unwrap();
    let newer = topic.end().await.unwrap();
    let billing = topic.subscribe("billing").await.unwrap();
    for _ in 0..3 {
        let delivery = billing.next().await.unwrap().unwrap();
        delivery.done();
    }
    billing.close(GRACE).await.unwrap();
    bus.close(GRACE).await.unwrap();
    // Cursors that are kept elsewhere outlive the copy, and so may a group's.
    let groups = Path::new("orders/groups");
    copy(&live.join(groups), &older.join(groups));

    // As one who only reads sees it, and as the writer does.
    let reader = Bus::new(Builder::directory(&older).build().unwrap());
    let topic = reader.topic("orders").await.unwrap();
    every_way(&topic, &newer).await;
    reader.close(GRACE).await.unwrap();
    let (bus, topic) = orders(&older).await;
    every_way(&topic, &newer).await;
    let Err(error) = topic.subscribe("billing").await.unwrap().next().await else {
        panic!("a group behind the end is handed records");
    };
    is_refused(&error);

    // The end itself is a place like any other, and so is the cursor once the log has grown to it.
    assert!(
        topic
            .replay(&end)
            .await
            .unwrap()
            .next()
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(topic.lag(&end).await.unwrap().records, Some(0));
    topic.append(Record::new("2")).await.unwrap();
    assert_eq!(topic.lag(&newer).await.unwrap().records, Some(0));
    bus.close(GRACE).await.unwrap();
}
