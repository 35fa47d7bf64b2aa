mod named;

use annals_core::{Clock, Position};

use std::path::Path;

use super::*;
use crate::disk::{FaultyDisk, RealDisk};

fn group() -> Group {
    Group::new("billing").unwrap()
}

fn first(at: Frontier) -> [Lease; 1] {
    [Lease {
        partition: PartitionId::ONLY,
        owner: None,
        counter: 0,
        at,
        parents: Vec::new(),
        attempts: 0,
    }]
}

fn after(n: u64) -> Frontier {
    Frontier::after(Position::new(PartitionId::ONLY, n))
}

fn mark(tenancy: Tenancy, n: u64) -> Mark {
    Mark {
        tenancy,
        to: after(n),
        attempts: 0,
    }
}

fn topic_on(disk: &FaultyDisk) -> Groups {
    let topic = Path::new("topic");
    if disk.list(topic).is_err() {
        disk.create_dir(topic).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
    }
    Groups::new(Arc::new(disk.clone()), topic.to_owned(), "pid 1".to_owned())
}

async fn row(groups: &Groups) -> Lease {
    groups.load(&group()).await.unwrap().unwrap().remove(0)
}

async fn take(groups: &Groups, by: &str) -> Option<Tenancy> {
    let seen = row(groups).await;
    groups.take(&group(), &seen, &by.into()).await.unwrap()
}

async fn commit(groups: &Groups, mark: Mark) -> Result<()> {
    groups.commit(&group(), &[mark]).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_group_is_founded_once_and_members_compete_by_its_row() {
    let disk = FaultyDisk::new(Clock::system());
    let groups = topic_on(&disk);
    assert_eq!(groups.load(&group()).await.unwrap(), None);
    assert!(disk.list(Path::new("topic")).unwrap().is_empty());
    assert!(groups.found(&group(), &first(after(4))).await.unwrap());
    assert!(!groups.found(&group(), &first(after(9))).await.unwrap());
    assert_eq!(row(&groups).await.at, after(4));

    let seen = row(&groups).await;
    let a = take(&groups, "a").await.unwrap();
    // What was seen before is stale, so is what was seen before a renewal.
    let late = groups.take(&group(), &seen, &"b".into()).await.unwrap();
    assert_eq!(late, None);
    let seen = row(&groups).await;
    assert_eq!(seen.owner.as_deref(), Some("a"));
    assert!(groups.renew(&group(), &[a]).await.unwrap()[0].is_ok());
    let late = groups.take(&group(), &seen, &"b".into()).await.unwrap();
    assert_eq!(late, None);

    commit(&groups, mark(a, 7)).await.unwrap();
    commit(&groups, mark(a, 5)).await.unwrap();
    assert_eq!(row(&groups).await.at, after(7), "a cursor does not go back");

    let b = take(&groups, "b").await.unwrap();
    assert!(b.epoch > a.epoch);
    let fenced = commit(&groups, mark(a, 8)).await.unwrap_err();
    assert_eq!(
        (fenced.kind(), fenced.effect()),
        (ErrorKind::Fenced, Effect::None)
    );
    assert!(groups.renew(&group(), &[a]).await.unwrap()[0].is_err());
    assert!(groups.release(&group(), a).await.is_err());
    assert_eq!(row(&groups).await.at, after(7));

    groups.release(&group(), b).await.unwrap();
    assert_eq!(row(&groups).await.owner, None);
    assert!(commit(&groups, mark(b, 8)).await.is_err());
    let c = take(&groups, "c").await.unwrap();
    assert!(c.epoch > b.epoch);
}

#[tokio::test]
async fn one_process_owns_a_group_and_another_takes_over_when_it_dies() {
    let disk = FaultyDisk::new(Clock::system());
    let (one, two) = (topic_on(&disk), topic_on(&disk));
    one.found(&group(), &first(Frontier::START)).await.unwrap();
    let a = take(&one, "a").await.unwrap();
    commit(&one, mark(a, 3)).await.unwrap();
    assert_eq!(take(&two, "b").await, None);
    assert_eq!(row(&two).await.owner.as_deref(), Some("a"));
    let blocked = two.0.delete(&group()).unwrap_err();
    assert_eq!(blocked.kind(), ErrorKind::Blocked);

    let next = disk.after_kill();
    let two = topic_on(&next);
    assert_eq!(row(&two).await.owner, None, "its process is gone");
    assert_eq!(row(&two).await.at, after(3));
    let b = take(&two, "b").await.unwrap();
    assert!(b.epoch > a.epoch);

    one.let_go();
    assert!(commit(&one, mark(a, 4)).await.is_err());
    assert!(take(&topic_on(&disk), "c").await.is_some());
}

#[tokio::test]
async fn commits_are_durable_and_work_on_a_full_disk() {
    let disk = FaultyDisk::new(Clock::system());
    let groups = topic_on(&disk);
    groups
        .found(&group(), &first(Frontier::START))
        .await
        .unwrap();
    let a = take(&groups, "a").await.unwrap();
    disk.faults().room(Some(0));
    for n in 1..20 {
        commit(&groups, mark(a, n)).await.unwrap();
        let lost = topic_on(&disk.after_power_loss(n));
        assert_eq!(row(&lost).await.at, after(n));
        let next = take(&lost, "b").await.unwrap();
        assert!(next.epoch > a.epoch);
    }
    let other = Group::new("other").unwrap();
    let full = groups.found(&other, &first(Frontier::START)).await;
    assert_eq!(full.unwrap_err().kind(), ErrorKind::Blocked);
    disk.faults().clear();
    assert!(groups.found(&other, &first(Frontier::START)).await.unwrap());
}

/// Taking, committing, renewing and releasing, cut short anywhere.
#[tokio::test]
async fn a_cursor_is_whole_at_any_crash_point() {
    let disk = FaultyDisk::new(Clock::system());
    let groups = topic_on(&disk);
    groups.found(&group(), &first(after(0))).await.unwrap();
    disk.record();
    let mut marks = vec![(0, 0)];
    let mut epoch = 0;
    for stay in 0..4 {
        let tenancy = take(&groups, "a").await.unwrap();
        assert!(tenancy.epoch > epoch);
        epoch = tenancy.epoch;
        for n in 1..6 {
            commit(&groups, mark(tenancy, stay * 5 + n)).await.unwrap();
            groups.renew(&group(), &[tenancy]).await.unwrap();
            marks.push((disk.recorded(), stay * 5 + n));
        }
        groups.release(&group(), tenancy).await.unwrap();
    }
    let history = disk.history();
    let mut moments = history.moments();
    loop {
        let committed = marks.iter().rfind(|(m, _)| *m <= moments.at()).unwrap().1;
        let lost = (0..6).map(|seed| moments.after_power_loss(seed));
        for left in lost.chain([moments.after_kill()]) {
            let next = topic_on(&left);
            let row = row(&next).await;
            assert_eq!(row.owner, None, "its process is gone");
            // At what was acknowledged, or at what was being committed.
            assert!(
                row.at == after(committed) || row.at == after(committed + 1),
                "{:?} after {committed}",
                row.at
            );
            let tenancy = take(&next, "b").await.unwrap();
            commit(&next, mark(tenancy, 90)).await.unwrap();
            let again = topic_on(&left.after_power_loss(9));
            assert_eq!(self::row(&again).await.at, after(90));
        }
        if !moments.step() {
            break;
        }
    }
    assert!(history.len() > 40, "{}", history.len());
}

#[tokio::test]
async fn groups_are_made_and_deleted_whole_whenever_the_power_goes() {
    let disk = FaultyDisk::new(Clock::system());
    let groups = topic_on(&disk);
    disk.record();
    groups.found(&group(), &first(after(4))).await.unwrap();
    let made = disk.recorded();
    groups.delete(&group()).unwrap();
    assert_eq!(
        groups.delete(&group()).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let history = disk.history();
    let mut moments = history.moments();
    loop {
        let lost = (0..8).map(|seed| moments.after_power_loss(seed));
        for left in lost.chain([moments.after_kill()]) {
            let left = topic_on(&left);
            let found = left.load(&group()).await.unwrap();
            if let Some(rows) = &found {
                assert_eq!(rows[0].at, after(4));
            }
            assert!(moments.at() != made || found.is_some());
            assert!(moments.at() != history.len() || found.is_none());
            // Whatever is left is no hindrance.
            assert_eq!(left.list().unwrap().len(), usize::from(found.is_some()));
            if found.is_none() {
                assert!(left.found(&group(), &first(after(5))).await.unwrap());
            }
            left.delete(&group()).unwrap();
        }
        if !moments.step() {
            break;
        }
    }
}

#[tokio::test]
async fn on_a_real_disk_too() {
    let root = tempfile::tempdir().unwrap();
    let groups = |owner: &str| {
        Groups::new(
            Arc::new(RealDisk::default()),
            root.path().to_owned(),
            owner.to_owned(),
        )
    };
    let (one, two) = (groups("pid 1"), groups("pid 2"));
    assert!(one.found(&group(), &first(after(4))).await.unwrap());
    assert!(!two.found(&group(), &first(after(9))).await.unwrap());
    let a = take(&one, "a").await.unwrap();
    assert_eq!(take(&two, "b").await, None);
    commit(&one, mark(a, 6)).await.unwrap();
    assert_eq!(row(&two).await.at, after(6));
    let blocked = two.0.delete(&group()).unwrap_err();
    assert!(blocked.to_string().contains("pid 1"), "{blocked}");
    drop(one);
    let b = take(&two, "b").await.unwrap();
    two.release(&group(), b).await.unwrap();
    two.delete(&group()).unwrap();
    assert!(two.list().unwrap().is_empty());
}

#[tokio::test]
async fn a_broken_cursor_fails_its_own_group_which_can_be_deleted_and_made_again() {
    let disk = FaultyDisk::new(Clock::system());
    let groups = topic_on(&disk);
    let other = Group::new("audit").unwrap();
    assert!(groups.found(&other, &first(after(2))).await.unwrap());
    assert!(groups.found(&group(), &first(after(4))).await.unwrap());
    let file = disk
        .open(Path::new("topic/groups/billing/cursor"), OpenMode::Write)
        .unwrap();
    file.write_at(&[0xff], 4096 + 20).unwrap();

    let listed = groups.list().unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].0, other);
    assert_eq!(listed[0].1.as_ref().unwrap().at, after(2));
    let broken = listed[1].1.as_ref().unwrap_err();
    assert_eq!(
        (&listed[1].0, broken.kind()),
        (&group(), ErrorKind::Corrupt)
    );
    let taken = groups.found(&group(), &first(after(9))).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Corrupt);

    groups.delete(&group()).unwrap();
    assert_eq!(groups.list().unwrap().len(), 1);
    assert!(groups.found(&group(), &first(after(3))).await.unwrap());
    assert_eq!(row(&groups).await.at, after(3));
}

#[tokio::test]
async fn a_zombie_of_a_deleted_group_settles_nothing_of_the_one_that_has_its_name() {
    let disk = FaultyDisk::new(Clock::system());
    let groups = topic_on(&disk);
    let start = first(Frontier::START);
    groups.found(&group(), &start).await.unwrap();
    let zombie = take(&groups, "a").await.unwrap();
    commit(&groups, mark(zombie, 5)).await.unwrap();
    groups.release(&group(), zombie).await.unwrap();
    groups.delete(&group()).unwrap();

    groups.found(&group(), &start).await.unwrap();
    let mine = take(&groups, "b").await.unwrap();
    let late = commit(&groups, mark(zombie, 9)).await.unwrap_err();
    assert_eq!(
        (late.kind(), late.effect()),
        (ErrorKind::Fenced, Effect::None)
    );
    assert!(groups.renew(&group(), &[zombie]).await.unwrap()[0].is_err());
    assert!(groups.release(&group(), zombie).await.is_err());
    let now = row(&groups).await;
    assert_eq!((now.at, now.owner.as_deref()), (Frontier::START, Some("b")));
    commit(&groups, mark(mine, 1)).await.unwrap();
}

#[tokio::test]
async fn what_was_released_has_no_owner_for_anybody_at_once() {
    let root = tempfile::tempdir().unwrap();
    let groups = |owner: &str| {
        let disk = Arc::new(RealDisk::default());
        Groups::new(disk, root.path().to_owned(), owner.to_owned())
    };
    let (one, two) = (groups("pid 1"), groups("pid 2"));
    one.found(&group(), &first(after(4))).await.unwrap();
    let a = take(&one, "a").await.unwrap();
    assert_eq!(row(&two).await.owner.as_deref(), Some("a"));
    one.release(&group(), a).await.unwrap();
    // No owner: whoever takes it waits for nobody's lease to run out.
    assert_eq!(row(&two).await.owner, None);
    assert!(take(&two, "b").await.is_some());
    assert_eq!(row(&one).await.owner.as_deref(), Some("b"));
    two.let_go();
    assert_eq!(row(&one).await.owner, None);
    let c = take(&one, "c").await;
    assert!(c.is_some());
    // A process that is gone has released nothing, and owns nothing.
    drop(one);
    assert_eq!(row(&two).await.owner, None);
    assert!(take(&two, "d").await.is_some());
}
