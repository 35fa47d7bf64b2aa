//! Checking what lies on disk, which only this backend can: every checksum of a topic.

use annals_core::{Operation, Result, TopicName};

use crate::backend::Embedded;
use crate::error::blocking;
use crate::log::verify::{Verified, verify};

impl Embedded {
    /// Reads a topic up to its durable end and checks every checksum, and that nothing is missing
    /// in between. An index that is stale or broken is told in the result, and so is a broken place
    /// of `tail` or `start` and a group's broken cursor: no record is lost with them.
    ///
    /// Writes nothing and takes no lock, so it works beside the process that writes; what is
    /// appended after the call is not looked at. What retention removes meanwhile is left out.
    ///
    /// # Errors
    /// `Corrupt`, naming the topic and the first position in doubt; `NotFound`; `Closed`; the
    /// disk's. No effect.
    ///
    /// # Cancel safety
    /// Dropped, the reading goes on to its end in the background and its result is lost.
    pub async fn verify(&self, topic: &TopicName) -> Result<Verified> {
        let checked = match self.root().topic(topic).await {
            Ok(there) => {
                let groups = self.root().open(topic).groups.clone();
                blocking(move || {
                    let mut verified = verify(&there)?;
                    let cursors = groups.list()?.into_iter();
                    let broken = cursors.filter_map(|(_, lease)| lease.err());
                    verified.broken.extend(broken.map(|e| e.to_string()));
                    Ok(verified)
                })
                .await
            }
            Err(e) => Err(e),
        };
        checked.map_err(|e| e.during(Operation::Read).on_topic(topic).by(self.name()))
    }
}
