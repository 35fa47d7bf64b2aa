//! How deep, how large, which seed: from the environment.

use std::time::Duration;

use siphasher::sip::SipHasher13;

/// How much is tried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Depth {
    /// Every law: its fault-free cases and a fault.
    Quick,
    /// Everything.
    Full,
}

impl Depth {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }
}

/// How laws are run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// How much is tried.
    pub depth: Depth,
    /// Where all dice come from: the same seed throws the same.
    pub seed: u64,
    /// About how many records a workload has.
    pub size: usize,
    /// The longest that a case may take, by its runtime's clock.
    pub case: Duration,
    /// The longest that one thing in a case may take which needs no waiting, by its runtime's clock.
    pub patience: Duration,
    /// The longest that a law may take, by the clock on the wall: what ends a loop that never waits.
    pub wall: Duration,
}

impl Default for Settings {
    /// Quick, 200 records, seed 1, a minute for a case.
    fn default() -> Self {
        Self {
            depth: Depth::Quick,
            seed: 1,
            size: 200,
            case: Duration::from_secs(60),
            patience: Duration::from_secs(30),
            wall: Duration::from_secs(120),
        }
    }
}

impl Settings {
    /// As the environment says: `ANNALS_LAWS_DEPTH` (`quick` or `full`), `ANNALS_LAWS_SEED`,
    /// `ANNALS_LAWS_SIZE` (records), `ANNALS_LAWS_SECONDS` (the most that a law may take).
    ///
    /// # Errors
    /// What is set and cannot be read, as one line that says so.
    pub fn from_env() -> Result<Self, String> {
        let mut settings = Self::default();
        if let Some(depth) = read("ANNALS_LAWS_DEPTH")? {
            settings.depth = match depth.as_str() {
                "quick" => Depth::Quick,
                "full" => Depth::Full,
                other => {
                    return Err(format!(
                        "ANNALS_LAWS_DEPTH is \"{other}\"; it can be quick or full"
                    ));
                }
            };
        }
        if let Some(seed) = number("ANNALS_LAWS_SEED")? {
            settings.seed = seed;
        }
        if let Some(size) = number("ANNALS_LAWS_SIZE")? {
            settings.size = usize::try_from(size).unwrap_or(usize::MAX);
        }
        if let Some(seconds) = number("ANNALS_LAWS_SECONDS")? {
            settings.wall = Duration::from_secs(seconds);
            settings.case = settings.wall;
        }
        Ok(settings)
    }

    /// The dice of one case: no case changes when another one is added.
    pub(crate) fn seed_of(&self, law: &str, case: &str) -> u64 {
        SipHasher13::new_with_keys(self.seed, 0).hash(format!("{law}/{case}").as_bytes())
    }

    /// The variables that run the same again.
    pub(crate) fn again(&self) -> String {
        format!(
            "ANNALS_LAWS_DEPTH={} ANNALS_LAWS_SEED={} ANNALS_LAWS_SIZE={}",
            self.depth.as_str(),
            self.seed,
            self.size
        )
    }
}

fn read(name: &str) -> Result<Option<String>, String> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(format!("{name} is not text")),
    }
}

fn number(name: &str) -> Result<Option<u64>, String> {
    read(name)?
        .map(|text| {
            text.parse()
                .map_err(|_| format!("{name} is \"{text}\"; it is a whole number"))
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_has_dice_of_its_own() {
        let settings = Settings::default();
        assert_eq!(settings.seed_of("a", "b"), settings.seed_of("a", "b"));
        assert_ne!(settings.seed_of("a", "b"), settings.seed_of("a", "c"));
        let other = Settings {
            seed: 2,
            ..Settings::default()
        };
        assert_ne!(settings.seed_of("a", "b"), other.seed_of("a", "b"));
    }
}
