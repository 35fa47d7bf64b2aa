//! Where a backend is: URLs as annals reads them, strictly, and without showing what is secret.

mod options;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Operation, Result};

pub use options::{Options, parse_bytes, parse_duration, parse_retention};

/// A backend's address, taken apart: `scheme:path?key=value` or
/// `scheme://user:password@host:port,host:port/path?key=value`.
///
/// Lists of hosts make it more than a URL of the web, and it is stricter: an escape that is none,
/// a key that comes twice, a fragment or a second `@` is an error. Everything but the hosts is
/// percent-decoded; `+` is a plus.
///
/// `Display` and `Debug` show neither the password nor any value of the query, because a secret
/// under a misspelt key is still one. Errors never repeat the text.
///
/// ```
/// use annals_core::Address;
/// let address: Address = "amqps://app:s3cret@a:5671,b:5671/shop?heartbeat=10s".parse()?;
/// assert_eq!(address.scheme(), "amqps");
/// assert_eq!(address.hosts(), Some("a:5671,b:5671"));
/// assert_eq!(address.password(), Some("s3cret"));
/// assert_eq!(address.to_string(), "amqps://app:***@a:5671,b:5671/shop?heartbeat=***");
/// # Ok::<(), annals_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    scheme: String,
    user: Option<String>,
    password: Option<String>,
    hosts: Option<String>,
    path: String,
    query: Vec<(String, String)>,
}

impl Address {
    /// The lower-case word before the first colon.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user before the `@`.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password before the `@`.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// What stands between `//` (and `user:password@`) and the path: one host with its port, or
    /// several with commas; empty as in `file:///var`. `None`: the address has no `//`.
    pub fn hosts(&self) -> Option<&str> {
        self.hosts.as_deref()
    }

    /// The path; behind hosts it begins with `/` or is empty.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query, to be taken apart key by key; see [`Options`].
    pub fn options(&self) -> Options {
        Options::new(self.query.clone())
    }
}

impl FromStr for Address {
    type Err = Error;

    /// # Errors
    /// `Config`, saying what is wrong without repeating the text.
    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|error| error.during(Operation::Connect))
    }
}

fn parse(text: &str) -> Result<Address> {
    let Some((scheme, rest)) = text.split_once(':').filter(|(s, _)| is_scheme(s)) else {
        return Err(Error::config(
            "the address has no scheme; write it as file:PATH, memory: or scheme://host",
        ));
    };
    if rest.contains('#') {
        return Err(Error::config(
            "the address has a fragment; write '#' as %23",
        ));
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (login, hosts, path) = match place.strip_prefix("//") {
        None => (None, None, place),
        Some(place) => {
            let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
            if authority.matches('@').count() > 1 || path.contains('@') || query.contains('@') {
                return Err(Error::config(
                    "the address has an '@' that is not the one before the host; write '@' as %40, '/' as %2F and '?' as %3F in user, password, path and query",
                ));
            }
            let (login, hosts) = match authority.split_once('@') {
                Some((login, hosts)) => (Some(login), hosts),
                None => (None, authority),
            };
            if let Some(bad) = hosts.chars().find(|c| !is_host(*c)) {
                return Err(Error::config(format!(
                    "the hosts in the address contain {bad:?}"
                )));
            }
            (login, Some(hosts.to_owned()), path)
        }
    };
    let (user, password) = match login {
        None => (None, None),
        Some(login) => {
            let (user, password) = match login.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (login, None),
            };
            (
                Some(decode("user", user)?),
                password.map(|p| decode("password", p)).transpose()?,
            )
        }
    };
    Ok(Address {
        scheme: scheme.to_ascii_lowercase(),
        user,
        password,
        hosts,
        path: decode("path", path)?,
        query: parse_query(query)?,
    })
}

fn parse_query(query: &str) -> Result<Vec<(String, String)>> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Error::config(
                "the address has an option without a value; write key=value",
            ));
        };
        let key = decode("query", key)?;
        if pairs.iter().any(|(known, _)| *known == key) {
            return Err(Error::config(format!("the option {key:?} is given twice")));
        }
        pairs.push((key, decode("query", value)?));
    }
    Ok(pairs)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn is_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | ',' | '[' | ']')
}

/// Percent-decodes; `part` is named in errors, its text is not.
fn decode(part: &str, text: &str) -> Result<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        let escaped = digit()
            .zip(digit())
            .and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
            .ok_or_else(|| {
                Error::config(format!(
                    "the {part} of the address has a '%' without two hexadecimal digits; write '%' as %25"
                ))
            })?;
        out.push(escaped);
    }
    if out.contains(&0) {
        return Err(Error::config(format!(
            "the {part} of the address contains a zero byte"
        )));
    }
    String::from_utf8(out)
        .map_err(|_| Error::config(format!("the {part} of the address is not UTF-8")))
}

/// What an address shows in place of a secret.
const HIDDEN: &str = "***";

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme)?;
        if let Some(hosts) = &self.hosts {
            f.write_str("//")?;
            if let Some(user) = &self.user {
                f.write_str(user)?;
                if self.password.is_some() {
                    write!(f, ":{HIDDEN}")?;
                }
                f.write_str("@")?;
            }
            f.write_str(hosts)?;
        }
        // Somebody may have forgotten the `//` before `user:password@host`.
        match self.path.rsplit_once('@') {
            Some((login, rest)) if login.contains(':') => write!(f, "{HIDDEN}@{rest}")?,
            _ => f.write_str(&self.path)?,
        }
        for (i, (key, _)) in self.query.iter().enumerate() {
            write!(f, "{}{key}={HIDDEN}", if i == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}
