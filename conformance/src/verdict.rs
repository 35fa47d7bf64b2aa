//! What came of a law.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a law ends as. There is no fourth state. Ordered from the best to the worst, save that a
/// refusal is as good as a law upheld: only a promise that is broken is bad.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It holds.
    Upheld,
    /// The backend does not claim it, and says so before anything happens.
    Refused,
    /// It does not hold, or nothing shows that it does.
    Violated,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upheld => "upheld",
            Self::Refused => "refused",
            Self::Violated => "violated",
        })
    }
}

/// How much of a law could be exercised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// All of its cases.
    Full,
    /// Some were not exercised; each says why.
    Partial,
}

/// How often something that a case rests on was seen, and how often it must be seen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Count {
    /// Of what.
    pub of: String,
    /// How often it was seen.
    pub seen: u64,
    /// Below this the case shows nothing.
    pub least: u64,
}

/// The evidence that a case is not empty.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts(Vec<Count>);

impl Counts {
    /// No evidence yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// With this: `seen` times, of at least `least`.
    #[must_use]
    pub fn of(mut self, what: impl Into<String>, seen: usize, least: usize) -> Self {
        self.0.push(Count {
            of: what.into(),
            seen: seen as u64,
            least: least as u64,
        });
        self
    }

    /// What was seen too seldom.
    pub fn short(&self) -> Option<&Count> {
        self.0.iter().find(|count| count.seen < count.least)
    }

    /// Whether nothing was counted at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `400 acknowledged, 400 read`.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, count) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{} {}", count.seen, count.of)?;
        }
        Ok(())
    }
}

/// What came of one case.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Fate {
    /// It held, on this evidence.
    Held {
        /// The evidence.
        counts: Counts,
    },
    /// It did not hold, or did not end.
    Broken {
        /// The smallest history that shows it, or the ids that are the evidence.
        why: String,
    },
    /// It came to its end and had seen too little to show anything: as bad as broken.
    Empty {
        /// What there was too little of.
        why: String,
    },
    /// The harness could not do what it takes.
    NotExercised {
        /// What and why.
        why: String,
    },
}

/// One case of a law.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Case {
    /// Its name.
    pub case: String,
    /// What came of it.
    #[serde(flatten)]
    pub fate: Fate,
}

/// What came of a law.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// The law's name, in snake case.
    pub law: String,
    /// What it ends as.
    pub state: State,
    /// How much of it was exercised.
    pub reach: Reach,
    /// Its cases.
    pub cases: Vec<Case>,
    /// How long it took, in real seconds.
    pub seconds: f64,
    /// Why it is not upheld, or not in full.
    pub why: String,
}

impl Verdict {
    /// Whether some case shows that the law is violated; an empty one shows nothing.
    pub fn shows_it(&self) -> bool {
        let broken = |case: &Case| matches!(case.fate, Fate::Broken { .. });
        self.cases.iter().any(broken)
    }

    /// What its cases rest on, added up: `400 acknowledged, 400 read`.
    pub fn evidence(&self) -> String {
        let mut sums: Vec<Count> = Vec::new();
        for case in &self.cases {
            let Fate::Held { counts } = &case.fate else {
                continue;
            };
            for count in &counts.0 {
                match sums.iter_mut().find(|sum| sum.of == count.of) {
                    Some(sum) => sum.seen += count.seen,
                    None => sums.push(count.clone()),
                }
            }
        }
        Counts(sums).to_string()
    }

    /// Composes the cases of a law. `refusing`: they are those that show its refusal.
    pub(crate) fn of(law: &str, refusing: bool, cases: Vec<Case>, seconds: f64) -> Self {
        let broken = cases.iter().find_map(|case| match &case.fate {
            Fate::Broken { why } | Fate::Empty { why } => Some(format!("{}: {why}", case.case)),
            Fate::Held { .. } | Fate::NotExercised { .. } => None,
        });
        let missed: Vec<String> = cases
            .iter()
            .filter_map(|case| match &case.fate {
                Fate::NotExercised { why } => Some(format!("{} not exercised: {why}", case.case)),
                _ => None,
            })
            .collect();
        let held = cases.len() - missed.len();
        let (state, why) = match broken {
            Some(why) => (State::Violated, why),
            None if held == 0 => (
                State::Violated,
                format!("nothing shows it; {}", missed.join("; ")),
            ),
            None if refusing => (State::Refused, missed.join("; ")),
            None => (State::Upheld, missed.join("; ")),
        };
        Self {
            law: law.to_owned(),
            state,
            reach: if missed.is_empty() {
                Reach::Full
            } else {
                Reach::Partial
            },
            cases,
            seconds,
            why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(fate: Fate) -> Case {
        Case {
            case: "one".into(),
            fate,
        }
    }

    fn held() -> Case {
        case(Fate::Held {
            counts: Counts::new().of("records", 3, 2),
        })
    }

    fn missed() -> Case {
        case(Fate::NotExercised {
            why: "cannot kill it".into(),
        })
    }

    #[test]
    fn one_broken_case_violates_a_law_and_an_empty_one_is_no_proof() {
        let broken = case(Fate::Broken { why: "lost".into() });
        let verdict = Verdict::of("durable", false, vec![held(), broken], 0.0);
        assert_eq!(
            (verdict.state, verdict.why.as_str()),
            (State::Violated, "one: lost")
        );
        let verdict = Verdict::of("durable", false, vec![missed()], 0.0);
        assert_eq!(verdict.state, State::Violated);
        let verdict = Verdict::of("durable", false, vec![], 0.0);
        assert_eq!(verdict.state, State::Violated);
    }

    #[test]
    fn what_was_not_exercised_shows() {
        let verdict = Verdict::of("durable", false, vec![held(), missed()], 0.0);
        assert_eq!(
            (verdict.state, verdict.reach),
            (State::Upheld, Reach::Partial)
        );
        let verdict = Verdict::of("durable", true, vec![held()], 0.0);
        assert_eq!(
            (verdict.state, verdict.reach),
            (State::Refused, Reach::Full)
        );
    }

    #[test]
    fn evidence_is_added_up_over_the_cases_that_held() {
        let of = |reads| {
            let counts = Counts::new().of("reads", reads, 1).of("faults", 1, 1);
            case(Fate::Held { counts })
        };
        let verdict = Verdict::of("durable", false, vec![of(2), missed(), of(3)], 0.0);
        assert_eq!(verdict.evidence(), "5 reads, 2 faults");
    }

    #[test]
    fn counts_below_their_least_are_short() {
        assert_eq!(Counts::new().of("reads", 3, 3).short(), None);
        let counts = Counts::new().of("reads", 3, 3).of("faults", 0, 1);
        assert_eq!(
            counts.short().map(|count| count.of.as_str()),
            Some("faults")
        );
    }
}
