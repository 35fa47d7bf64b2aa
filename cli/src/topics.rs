//! `annals topics`.

use annals::driver::Description;
use annals::{Bus, TopicName, TopicSpec};
use serde_json::json;

use crate::arguments::{Topics, TopicsCommand};
use crate::exit::{Failure, tell};
use crate::stop::Stop;
use crate::table::{columns, print, print_json};

pub(crate) async fn run(bus: &Bus, arguments: &Topics, stop: &Stop) -> Result<(), Failure> {
    match &arguments.command {
        TopicsCommand::List { json } => {
            let topics = bus.topics().await?;
            let names: Vec<&str> = topics.iter().map(TopicName::as_str).collect();
            if *json {
                return print_json(&json!(names), stop).await;
            }
            if names.is_empty() {
                tell("there are no topics");
            }
            let rows: Vec<_> = names.iter().map(|name| vec![(*name).to_owned()]).collect();
            print(columns(&rows), stop).await
        }
        TopicsCommand::Create {
            topic,
            partitions,
            retention,
            dedupe,
            group,
            kind,
        } => {
            let spec = TopicSpec {
                partitions: *partitions,
                retention: *retention,
                dedupe: *dedupe,
                groups: group.clone(),
                kind: kind.clone().map(Into::into),
            };
            let made = bus.admin()?.create(topic, &spec).await?;
            tell(if made {
                format!("created {topic}")
            } else {
                format!("{topic} was there already, as asked")
            });
            Ok(())
        }
        TopicsCommand::Describe { topic, json } => {
            let described = bus.admin()?.describe(topic).await?;
            if *json {
                return print_json(&as_json(bus, &described), stop).await;
            }
            print(columns(&rows(bus, &described)), stop).await
        }
        TopicsCommand::Delete { topic } => {
            bus.admin()?.delete(topic).await?;
            tell(format!("deleted {topic}"));
            Ok(())
        }
    }
}

fn rows(bus: &Bus, topic: &Description) -> Vec<Vec<String>> {
    let end = topic
        .end
        .as_ref()
        .map_or_else(|| "-".to_owned(), ToString::to_string);
    let mut rows = vec![
        ("topic", topic.name.to_string()),
        ("backend", bus.scheme().to_owned()),
        ("incarnation", topic.incarnation.to_string()),
        ("end", end),
    ];
    for partition in &topic.partitions {
        rows.push((
            "partition",
            format!(
                "{} ({})",
                partition.name,
                if partition.open { "open" } else { "closed" }
            ),
        ));
    }
    let details = topic
        .details
        .iter()
        .map(|(name, value)| (*name, value.clone()));
    rows.extend(details);
    rows.extend(topic.capabilities.rows());
    rows.into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect()
}

fn as_json(bus: &Bus, topic: &Description) -> serde_json::Value {
    let partitions: Vec<_> = topic
        .partitions
        .iter()
        .map(|partition| {
            let parents: Vec<u64> = partition.parents.iter().map(|id| id.get()).collect();
            json!({
                "id": partition.id.get(),
                "name": &*partition.name,
                "parents": parents,
                "open": partition.open,
            })
        })
        .collect();
    let details: serde_json::Map<_, _> = topic
        .details
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    json!({
        "topic": topic.name.as_str(),
        "backend": bus.scheme(),
        "incarnation": &*topic.incarnation,
        "end": topic.end.as_ref().map(ToString::to_string),
        "partitions": partitions,
        "details": details,
        "capabilities": topic.capabilities,
    })
}
