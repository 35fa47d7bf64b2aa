//! Saboteurs of *declared*.

use std::sync::{Arc, OnceLock};

use annals_core::capability::{LogTime, Members, Order};
use annals_core::driver::{AppendOptions, Backend};
use annals_core::{AppendReport, Batch, Capabilities, Result, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::Hook;

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "ignores_its_options",
        mirrors: "takes an option that it knows nothing of, stores the record and says nothing, as opendal #8205",
        model: Model::Sharded,
        law: "declared",
        make: |acted| Arc::new(Ignores(acted)),
    },
    Saboteur {
        name: "promises_by_a_static_table",
        mirrors: "answers what the service can do from a table in the code, however the topic is configured",
        model: Model::Log,
        law: "declared",
        make: |acted| {
            Arc::new(Static {
                acted,
                table: OnceLock::new(),
            })
        },
    },
    Saboteur {
        name: "promises_records_larger_than_it_takes",
        mirrors: "a limit read from the client's settings where the broker's is smaller (message.max.bytes)",
        model: Model::Queue,
        law: "declared",
        make: |acted| Arc::new(Larger(acted)),
    },
    Saboteur {
        name: "promises_a_total_order",
        mirrors: "calls a topic of several partitions ordered, since each of them is",
        model: Model::Sharded,
        law: "declared",
        make: |acted| Arc::new(Total(acted)),
    },
    Saboteur {
        name: "promises_members_that_are_assigned",
        mirrors: "says that the service assigns its groups' partitions, and leaves it to leases",
        model: Model::Log,
        law: "declared",
        make: |acted| Arc::new(Mistakes(acted)),
    },
];

#[derive(Debug)]
struct Ignores(Acted);

#[async_trait]
impl Hook for Ignores {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        if options.expect.is_some() || options.epoch.is_some() || options.atomic {
            self.0.mark();
        }
        let plain = AppendOptions {
            expect: None,
            epoch: None,
            atomic: false,
            ..options.clone()
        };
        below.append(topic, batch, &plain).await
    }
}

impl Sabotage for Ignores {}

#[derive(Debug)]
struct Static {
    acted: Acted,
    table: OnceLock<Capabilities>,
}

#[async_trait]
impl Hook for Static {
    fn capabilities(&self, _: &TopicName, has: Capabilities) -> Capabilities {
        let table = self.table.get_or_init(|| has.clone());
        if *table != has {
            self.acted.mark();
        }
        table.clone()
    }
}

impl Sabotage for Static {}

#[derive(Debug)]
struct Larger(Acted);

#[async_trait]
impl Hook for Larger {
    fn capabilities(&self, _: &TopicName, mut has: Capabilities) -> Capabilities {
        self.0.mark();
        let most = has.limits.record_bytes.known().copied().flatten();
        has.limits.record_bytes = most.map(|most| most * 4).into();
        has.limits.batch_bytes = has.limits.record_bytes;
        has
    }
}

impl Sabotage for Larger {}

#[derive(Debug)]
struct Total(Acted);

#[async_trait]
impl Hook for Total {
    fn capabilities(&self, _: &TopicName, mut has: Capabilities) -> Capabilities {
        self.0.mark();
        has.order = Order::Total.into();
        has.append.parallel = has.append.in_flight;
        has
    }
}

impl Sabotage for Total {}

#[derive(Debug)]
struct Mistakes(Acted);

#[async_trait]
impl Hook for Mistakes {
    fn capabilities(&self, _: &TopicName, mut has: Capabilities) -> Capabilities {
        self.0.mark();
        has.log_time = LogTime::None.into();
        has.groups.members = Members::Assigned.into();
        has
    }
}

impl Sabotage for Mistakes {}
