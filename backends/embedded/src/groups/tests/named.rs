//! Every error of a group says which one it is, of which topic, and in which file.

use super::*;
use crate::disk::{Call, Fault};

const CALLS: [Call; 10] = [
    Call::Open,
    Call::CreateDir,
    Call::Rename,
    Call::Remove,
    Call::SyncDir,
    Call::Lock,
    Call::Read,
    Call::Write,
    Call::Reserve,
    Call::Sync,
];

/// Everything that is done with a group; ends at the first error.
async fn a_life(groups: &Groups) -> Result<()> {
    let (group, first) = (group(), first(after(4)));
    groups.found(&group, &first).await?;
    let rows = groups.load(&group).await?.unwrap();
    let tenancy = groups.take(&group, &rows[0], &"a".into()).await?.unwrap();
    for renewed in groups.renew(&group, &[tenancy]).await? {
        renewed?;
    }
    for committed in groups.commit(&group, &[mark(tenancy, 5)]).await? {
        committed?;
    }
    groups.release(&group, tenancy).await?;
    groups.find(&group)?;
    for (_, listed) in groups.list()? {
        listed?;
    }
    groups.delete(&group)
}

fn check(error: &Error, seen: &mut usize) {
    let said = error.to_string();
    for part in ["\"topic\": ", "\"billing\""] {
        assert!(said.contains(part), "no {part} in: {said}");
    }
    // Who is not there, or has lost a group, has no file to look at.
    let of_files = !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Fenced);
    if of_files || error.find_source::<io::Error>().is_some() {
        assert!(said.contains("groups/billing"), "no file in: {said}");
    }
    *seen += 1;
}

#[tokio::test]
async fn wherever_the_disk_fails() {
    let mut seen = 0;
    for call in CALLS {
        for skip in 0.. {
            let disk = FaultyDisk::new(Clock::system());
            let groups = topic_on(&disk);
            disk.faults().inject(Fault::new(call).skip(skip));
            let lived = a_life(&groups).await;
            if disk.faults().fired() == 0 {
                break;
            }
            if let Err(error) = lived {
                check(&error, &mut seen);
            }
        }
    }
    assert!(seen > 20, "{seen} failures were seen");
}

#[tokio::test]
async fn and_where_it_does_not() {
    let mut seen = 0;
    let disk = FaultyDisk::new(Clock::system());
    let (one, two) = (topic_on(&disk), topic_on(&disk));
    let group = group();
    check(&one.delete(&group).unwrap_err(), &mut seen);
    check(&one.add(&group, &[]).await.unwrap_err(), &mut seen);
    one.found(&group, &first(after(4))).await.unwrap();
    let tenancy = take(&one, "a").await.unwrap();
    check(&one.delete(&group).unwrap_err(), &mut seen);
    check(&two.delete(&group).unwrap_err(), &mut seen);
    check(
        &commit(&two, mark(tenancy, 9)).await.unwrap_err(),
        &mut seen,
    );
    let renewed = two.renew(&group, &[tenancy]).await.unwrap().remove(0);
    check(&renewed.unwrap_err(), &mut seen);
    check(&two.release(&group, tenancy).await.unwrap_err(), &mut seen);
    one.release(&group, tenancy).await.unwrap();
    let cursor = Path::new("topic/groups/billing/cursor");
    let file = disk.open(cursor, OpenMode::Write).unwrap();
    for at in [20, 4096 + 20] {
        file.write_at(&[0xff], at).unwrap();
    }
    check(&one.load(&group).await.unwrap_err(), &mut seen);
    check(&one.list().unwrap().remove(0).1.unwrap_err(), &mut seen);
    disk.remove(cursor).unwrap();
    check(&one.find(&group).unwrap_err(), &mut seen);
    assert_eq!(seen, 10);
}
