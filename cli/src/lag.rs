//! `annals lag`.

use annals::Bus;
use serde_json::json;

use crate::arguments;
use crate::exit::Failure;
use crate::stop::Stop;
use crate::table::{columns, print, print_json, span};

pub(crate) async fn run(bus: &Bus, arguments: &arguments::Lag, stop: &Stop) -> Result<(), Failure> {
    let admin = bus.admin()?;
    let topic = &arguments.topic;
    let lags = match (&arguments.group, &arguments.cursor) {
        (Some(group), _) => admin.group_lag(topic, group).await?,
        (None, Some(cursor)) => admin.lag(topic, cursor).await?,
        (None, None) => return Err(Failure::usage("name a group, or give --cursor")),
    };
    if arguments.json {
        let rows = lags.iter().map(|lag| {
            json!({
                "partition": lag.partition.map(annals::PartitionId::get),
                "records": lag.records,
                "age_ms": age(lag),
            })
        });
        return print_json(&rows.collect(), stop).await;
    }
    let head = ["PARTITION", "BEHIND", "AGE"].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    let row = |name: String, lag| {
        let [behind, age] = records(lag);
        vec![name, behind, age]
    };
    for lag in &lags {
        let name = lag
            .partition
            .map_or_else(|| "all".to_owned(), |id| id.to_string());
        rows.push(row(name, lag));
    }
    if lags.len() > 1 {
        rows.push(row("all".to_owned(), &annals::Lag::sum(&lags)));
    }
    print(columns(&rows), stop).await
}

/// How many records and how old the first of them is, where that is known.
pub(crate) fn records(lag: &annals::Lag) -> [String; 2] {
    let unknown = || "-".to_owned();
    [
        lag.records
            .map_or_else(unknown, |records| records.to_string()),
        lag.age.map_or_else(unknown, span),
    ]
}

/// In milliseconds.
pub(crate) fn age(lag: &annals::Lag) -> Option<u64> {
    lag.age.and_then(|age| u64::try_from(age.as_millis()).ok())
}
