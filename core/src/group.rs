//! Groups where the service has none: core runs them over readers and a table of leases.

use std::sync::Arc;

use crate::driver::{Inbound, Leases, SubscribeOptions};
use crate::error::{Error, Result};
use crate::name::Group;
use crate::topic::Topic;

/// Joins a group.
#[expect(clippy::unused_async, reason = "joining asks the table")]
pub(crate) async fn join(
    _: &Topic,
    _: &Group,
    _: Arc<dyn Leases>,
    _: &SubscribeOptions,
) -> Result<Inbound> {
    Err(Error::unsupported(
        "groups over leases are not there yet in this version",
    ))
}
