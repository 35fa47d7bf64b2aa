//! The groups of a handle that was closed.

use std::sync::Arc;

use annals_core::driver::{Lease, Leases, Mark, Tenancy};
use annals_core::{Error, Group, Result};
use async_trait::async_trait;

/// Where every call is `Closed`.
#[derive(Debug)]
pub(crate) struct Ended;

fn closed<T>() -> Result<T> {
    Err(Error::closed("the log is closed; connect again"))
}

#[async_trait]
impl Leases for Ended {
    async fn load(&self, _: &Group) -> Result<Option<Vec<Lease>>> {
        closed()
    }

    async fn found(&self, _: &Group, _: &[Lease]) -> Result<bool> {
        closed()
    }

    async fn add(&self, _: &Group, _: &[Lease]) -> Result<()> {
        closed()
    }

    async fn take(&self, _: &Group, _: &Lease, _: &Arc<str>) -> Result<Option<Tenancy>> {
        closed()
    }

    async fn renew(&self, _: &Group, _: &[Tenancy]) -> Result<Vec<Result<()>>> {
        closed()
    }

    async fn commit(&self, _: &Group, _: &[Mark]) -> Result<Vec<Result<()>>> {
        closed()
    }

    async fn release(&self, _: &Group, _: Tenancy) -> Result<()> {
        closed()
    }
}
