//! `annals groups`.

use annals::driver::GroupStatus;
use annals::{Bus, ErrorKind, Lag, TopicName};
use serde_json::json;

use crate::arguments::{Groups, GroupsCommand};
use crate::bus::open;
use crate::exit::{Failure, tell, text_of};
use crate::lag::{age, records};
use crate::stop::Stop;
use crate::table::{columns, print, print_json};

pub(crate) async fn run(bus: &Bus, arguments: &Groups, stop: &Stop) -> Result<(), Failure> {
    match &arguments.command {
        GroupsCommand::List { topic, json } => list(bus, topic, *json, stop).await,
        GroupsCommand::Create { topic, group, from } => {
            let made = bus
                .admin()?
                .create_group(topic, group, from.clone())
                .await?;
            tell(if made {
                format!("created {group}")
            } else {
                format!("{group} was there already and stays where it is")
            });
            Ok(())
        }
        GroupsCommand::Delete { topic, group } => {
            bus.admin()?.delete_group(topic, group).await?;
            tell(format!("deleted {group}"));
            Ok(())
        }
    }
}

async fn list(bus: &Bus, topic: &TopicName, json: bool, stop: &Stop) -> Result<(), Failure> {
    let mut groups: Vec<(GroupStatus, Lag)> = Vec::new();
    let opened = open(bus, topic.as_str()).await?;
    for group in bus.admin()?.groups(topic).await? {
        let lag = match opened.group_lag(&group.group).await {
            // The others have theirs.
            Err(e) if matches!(e.kind(), ErrorKind::Config | ErrorKind::Corrupt) => {
                tell(format!("group \"{}\": {}", group.group, text_of(&e)));
                Lag::default()
            }
            lag => lag?,
        };
        groups.push((group, lag));
    }
    let committed = |group: &GroupStatus| group.committed.as_ref().map(ToString::to_string);
    if json {
        let groups = groups.iter().map(|(group, lag)| {
            let members: Vec<&str> = group.members.iter().map(|member| &**member).collect();
            json!({
                "group": group.group.as_str(),
                "records": lag.records,
                "age_ms": age(lag),
                "members": members,
                "committed": committed(group),
            })
        });
        return print_json(&groups.collect(), stop).await;
    }
    if groups.is_empty() {
        tell("there are no groups");
        return Ok(());
    }
    let head = ["GROUP", "BEHIND", "AGE", "MEMBERS", "COMMITTED"].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    for (group, lag) in &groups {
        let [behind, age] = records(lag);
        let members = if group.members.is_empty() {
            "-".to_owned()
        } else {
            group.members.join(", ")
        };
        let committed = committed(group).unwrap_or_else(|| "-".to_owned());
        rows.push(vec![
            group.group.to_string(),
            behind,
            age,
            members,
            committed,
        ]);
    }
    print(columns(&rows), stop).await
}
