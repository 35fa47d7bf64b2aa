//! Which scheme opens which backend.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use annals_core::{Address, Bus, Error, Operation, Result};

type Opening = Pin<Box<dyn Future<Output = Result<Bus>> + Send>>;
type Open = Arc<dyn Fn(Address) -> Opening + Send + Sync>;

/// The schemes that this project knows or will know, and the feature that brings each.
const KNOWN: [(&str, &str, Stage); 8] = [
    ("file", "embedded", Stage::Available),
    ("memory", "embedded", Stage::Available),
    ("kafka", "kafka", Stage::Planned),
    ("kinesis", "kinesis", Stage::Planned),
    ("sqs", "sqs", Stage::Planned),
    ("sns", "sqs", Stage::Planned),
    ("amqp", "amqp", Stage::Planned),
    ("amqps", "amqp", Stage::Planned),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Available,
    Planned,
}

/// Which scheme opens which backend: an ordinary value, made and changed by hand.
///
/// [`connect`](crate::connect) uses [`Registry::default`]; make your own to add a backend that
/// lives elsewhere, or to offer fewer.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> annals::Result<()> {
/// use annals::Registry;
///
/// let registry = Registry::empty().with("nowhere", |address| async move {
///     Err(annals::Error::config(format!("{} leads nowhere", address.path())))
/// });
/// let error = registry.connect("nowhere:left").await.unwrap_err();
/// assert_eq!(error.message(), "left leads nowhere");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Registry {
    rows: BTreeMap<String, Open>,
}

impl Registry {
    /// No scheme at all.
    pub const fn empty() -> Self {
        Self {
            rows: BTreeMap::new(),
        }
    }

    /// The same registry with one scheme more; one that was there is replaced. Schemes are lower
    /// case.
    #[must_use]
    pub fn with<F>(
        mut self,
        scheme: impl Into<String>,
        open: impl Fn(Address) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Bus>> + Send + 'static,
    {
        let open: Open = Arc::new(move |address| Box::pin(open(address)));
        self.rows.insert(scheme.into(), open);
        self
    }

    /// The schemes, by name.
    pub fn schemes(&self) -> impl ExactSizeIterator<Item = &str> {
        self.rows.keys().map(String::as_str)
    }

    /// Connects to the backend that `url` names.
    ///
    /// # Errors
    /// `Config` for a malformed address, a scheme that is not there (the text lists those that
    /// are, and names the feature to enable) and unknown options; else what the backend says. The
    /// address is never repeated: it may hold a password.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection that was being made.
    pub async fn connect(&self, url: &str) -> Result<Bus> {
        let address: Address = url.parse()?;
        let Some(open) = self.rows.get(address.scheme()) else {
            return Err(self.unknown(address.scheme()).during(Operation::Connect));
        };
        open(address)
            .await
            .map_err(|error| error.during(Operation::Connect))
    }

    fn unknown(&self, scheme: &str) -> Error {
        let schemes: Vec<&str> = self.schemes().collect();
        let available = if schemes.is_empty() {
            "there are none here".to_owned()
        } else {
            format!("there are {}", schemes.join(", "))
        };
        // Whatever stands before the first colon got here: not more of it than a scheme has.
        let shown: String = scheme.chars().take(16).collect();
        Error::config(match KNOWN.iter().find(|(name, ..)| *name == scheme) {
            Some((_, feature, Stage::Available)) => format!(
                "the scheme \"{shown}\" needs the feature \"{feature}\" of the crate annals, or its backend in this registry; {available}"
            ),
            Some((.., Stage::Planned)) => {
                format!("the scheme \"{shown}\" is not yet available; {available}")
            }
            None => format!("the scheme \"{shown}\" is unknown; {available}"),
        })
    }
}

/// The backends whose features are enabled.
impl Default for Registry {
    fn default() -> Self {
        let registry = Self::empty();
        #[cfg(feature = "embedded")]
        let registry = registry
            .with("file", |address| async move {
                annals_embedded::connect(&address)
            })
            .with("memory", |address| async move {
                annals_embedded::connect(&address)
            });
        registry
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.schemes()).finish()
    }
}
