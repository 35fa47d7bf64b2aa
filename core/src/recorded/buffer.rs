//! The memory that records share.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Bytes that many records lie in.
///
/// Cheaper to clone and to drop than [`Bytes`], and a quarter of its size: a replay does both for
/// each record.
#[derive(Clone, Default)]
pub struct Buffer(pub(super) Arc<Bytes>);

impl Buffer {
    /// The bytes for writing anew, when nobody else has them.
    ///
    /// # Errors
    /// The buffer itself, while a record or somebody with a part of it keeps it.
    pub fn try_into_mut(self) -> Result<BytesMut, Self> {
        let bytes = Arc::try_unwrap(self.0).map_err(Self)?;
        bytes.try_into_mut().map_err(Self::from)
    }
}

impl From<Bytes> for Buffer {
    fn from(bytes: Bytes) -> Self {
        Self(Arc::new(bytes))
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Buffer {
    /// The length only; no payload reaches a log through `Debug`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len())
    }
}
