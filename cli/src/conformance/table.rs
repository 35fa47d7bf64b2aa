//! What the laws came to, for people.

use std::fmt::Write as _;

use annals_conformance::report::Report;
use annals_conformance::verdict::{Fate, Reach};
use annals_conformance::{State, Verdict, law};

use crate::table::columns;

/// A law's name as people say it.
pub(super) fn name(law: &str) -> String {
    law.replace('_', " ")
}

/// Laws with their states, then why those are violated that are, then what could not be tried.
pub(super) fn of(report: &Report) -> String {
    let head = ["LAW", "STATE", "REACH", "EVIDENCE"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for verdict in &report.laws {
        let reach = match verdict.reach {
            Reach::Full => "full",
            Reach::Partial => "partial",
        };
        rows.push(vec![
            name(&verdict.law),
            verdict.state.to_string(),
            reach.to_owned(),
            shown(&verdict.evidence()),
        ]);
    }
    let mut text = columns(&rows);
    for verdict in &report.laws {
        if verdict.state == State::Violated {
            let sentence = law::by_name(&verdict.law).map_or("", |law| law.sentence());
            let _ = write!(
                text,
                "\nviolated: {}\n  law: {sentence}\n  why: {}\n",
                name(&verdict.law),
                indented(&verdict.why)
            );
        }
    }
    text + &missed(&report.laws)
}

/// What was not exercised, by its reason.
fn missed(laws: &[Verdict]) -> String {
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for verdict in laws {
        for case in &verdict.cases {
            let Fate::NotExercised { why } = &case.fate else {
                continue;
            };
            let case = format!("{}: {}", name(&verdict.law), case.case);
            match reasons.iter_mut().find(|(reason, _)| reason == why) {
                Some((_, cases)) => cases.push(case),
                None => reasons.push((why, vec![case])),
            }
        }
    }
    let mut text = String::new();
    for (reason, cases) in reasons {
        let _ = write!(text, "\nnot exercised: {}\n", indented(reason));
        for case in cases {
            let _ = writeln!(text, "  {case}");
        }
    }
    text
}

/// Without what would move a terminal's cursor.
fn shown(text: &str) -> String {
    let harmless = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(harmless).collect()
}

fn indented(text: &str) -> String {
    text.lines().map(shown).collect::<Vec<_>>().join("\n    ")
}

#[cfg(test)]
mod tests {
    use annals_conformance::verdict::Case;

    use super::*;

    #[test]
    fn why_and_what_was_not_tried_stand_below_the_table() {
        let case = |case: &str, fate| Case {
            case: case.into(),
            fate,
        };
        let cannot = || Fate::NotExercised {
            why: "nobody can kill it".into(),
        };
        let verdict = |law: &str, state, cases| Verdict {
            law: law.into(),
            state,
            reach: Reach::Partial,
            cases,
            seconds: 0.1,
            why: "two\nlines\u{1b}[2J".into(),
        };
        let text = of(&Report {
            backend: "b".into(),
            service: "s".into(),
            version: "v".into(),
            depth: "quick".into(),
            laws: vec![
                verdict("range", State::Upheld, vec![case("a kill", cannot())]),
                verdict("fan_out", State::Violated, vec![case("another", cannot())]),
            ],
        });
        assert!(text.contains("fan out  violated  partial"), "{text}");
        let sentence = law::by_name("fan_out").unwrap().sentence();
        let why =
            format!("violated: fan out\n  law: {sentence}\n  why: two\n    lines\u{fffd}[2J\n");
        assert!(text.contains(&why), "{text}");
        let once = "not exercised: nobody can kill it\n  range: a kill\n  fan out: another\n";
        assert!(text.ends_with(once), "{text}");
    }
}
