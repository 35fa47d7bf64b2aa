//! Names of topics and groups: one rule on every backend, so that a name that works on one works
//! on all.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The longest name of a topic or group, in bytes, which are its characters. Chosen under what every service takes
/// (Kafka 249, Kinesis 128, SQS 80 for the joined name of topic and group, which its backend
/// checks itself).
pub const MAX_NAME: usize = 128;

fn check(what: &str, name: &str) -> Result<()> {
    let wrong = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > MAX_NAME {
        format!("has {} bytes, the limit is {MAX_NAME}", name.len())
    } else if name.contains("..") || name.starts_with('.') {
        "starts with a dot or has two in a row".to_owned()
    } else if let Some(bad) = name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
    {
        format!("contains {bad:?}")
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(MAX_NAME).collect();
    Err(Error::config(format!(
        "the name of a {what}, {shown:?}, {wrong}; use 1 to {MAX_NAME} ASCII letters, digits, '_', '-' and single dots"
    )))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// 1 to [`MAX_NAME`] ASCII letters, digits, `_`, `-` and dots; no dot at the start, no
        /// two in a row. Names differ by case.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the name and keeps it.
            ///
            /// # Errors
            /// `Config`, naming what is wrong with it.
            pub fn new(name: impl AsRef<str>) -> Result<Self> {
                check($what, name.as_ref())?;
                Ok(Self(Arc::from(name.as_ref())))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// The name of a topic.
    TopicName,
    "topic"
);
name!(
    /// The name of a group: a set of subscribers that share a topic's records among them.
    Group,
    "group"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn bad_names_are_refused_and_named() {
        let long = "x".repeat(MAX_NAME + 1);
        for (bad, why) in [
            ("", "is empty"),
            ("a/b", "'/'"),
            ("a\\b", "'\\\\'"),
            ("..", "dot"),
            ("a..b", "dot"),
            (".hidden", "dot"),
            ("a b", "' '"),
            ("é", "'é'"),
            ("a\0b", "'\\0'"),
            (long.as_str(), "limit is 128"),
        ] {
            let error = TopicName::new(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(why), "{error}");
        }
        for good in ["a", "orders", "a.b", "A_1-x.y", &"x".repeat(MAX_NAME)] {
            assert_eq!(TopicName::new(good).unwrap().as_str(), good);
        }
    }
}
