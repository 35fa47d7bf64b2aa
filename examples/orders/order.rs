//! The command side: one order, its events, and the decisions that are made on its history.

use annals::{ErrorKind, Position, Record, Recorded, Start, Topic};
use serde::{Deserialize, Serialize};

/// What happens to an order.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    OrderPlaced { customer: String, cents: u32 },
    CreditInquiryMade { granted: bool },
    OrderProcessed,
    OrderShipped,
}

/// What somebody wants to happen.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Place { customer: String, cents: u32 },
    AskForCredit,
    Process,
    Ship,
}

/// Where an order stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) enum Stage {
    #[default]
    Unknown,
    Placed,
    Credited,
    Declined,
    Processed,
    Shipped,
}

impl Stage {
    pub(crate) const fn after(event: &Event) -> Self {
        match event {
            Event::OrderPlaced { .. } => Self::Placed,
            Event::CreditInquiryMade { granted: true } => Self::Credited,
            Event::CreditInquiryMade { granted: false } => Self::Declined,
            Event::OrderProcessed => Self::Processed,
            Event::OrderShipped => Self::Shipped,
        }
    }
}

/// One order as its history says, and where that history ends.
#[derive(Default)]
pub(crate) struct Order {
    stage: Stage,
    cents: u32,
    pub(crate) last: Option<Position>,
}

impl Order {
    pub(crate) async fn load(orders: &Topic, id: &str) -> annals::Result<Self> {
        let mut order = Self::default();
        let mut history = orders.replay(Start::Beginning).key(id).await?;
        while let Some(record) = history.next().await? {
            let event: Event = record.json()?;
            if let Event::OrderPlaced { cents, .. } = &event {
                order.cents = *cents;
            }
            order.stage = Stage::after(&event);
            order.last = record.position();
        }
        Ok(order)
    }

    /// What the command makes happen; `None`: it does not fit.
    pub(crate) fn decide(&self, command: &Command) -> Option<Event> {
        match (self.stage, command) {
            (Stage::Unknown, Command::Place { customer, cents }) => Some(Event::OrderPlaced {
                customer: customer.clone(),
                cents: *cents,
            }),
            (Stage::Placed, Command::AskForCredit) => Some(Event::CreditInquiryMade {
                granted: self.cents < 50_000,
            }),
            (Stage::Credited, Command::Process) => Some(Event::OrderProcessed),
            (Stage::Processed, Command::Ship) => Some(Event::OrderShipped),
            _ => None,
        }
    }
}

/// Loads, decides, and stores what was decided only if nobody has moved the order since; a rival
/// who was faster makes it load and decide again.
pub(crate) async fn handle(
    orders: &Topic,
    id: &str,
    command: &Command,
) -> annals::Result<Option<Event>> {
    loop {
        let order = Order::load(orders, id).await?;
        let Some(event) = order.decide(command) else {
            return Ok(None);
        };
        let record = Record::json(&event)?.key(id);
        match orders
            .append(record)
            .if_key_at(id, order.last.as_ref())
            .await
        {
            Ok(_) => return Ok(Some(event)),
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Which order an event is about.
pub(crate) fn id(record: &Recorded) -> annals::Result<String> {
    Ok(record.key_str()?.unwrap_or_default().to_owned())
}
