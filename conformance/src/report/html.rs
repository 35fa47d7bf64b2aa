//! A report as one page that needs nothing else.

use std::fmt::{self, Write as _};

use super::Report;
use crate::law;
use crate::verdict::{Case, Fate, Reach, State, Verdict};

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}\
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ddd;padding:.5rem;text-align:left;vertical-align:top}\
th{white-space:nowrap}.upheld{color:#0a6b2d}.refused{color:#6b5a0a}.violated{color:#b00020;font-weight:bold}\
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.25rem 0}summary{cursor:pointer}p{margin:.25rem 0}\
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616}td,th{border-color:#3a3a3a}\
.upheld{color:#5fd38a}.refused{color:#d8c15f}.violated{color:#ff7b88}}";

/// Text that stands for itself in a page.
struct Text<'t>(&'t str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Nothing that moves the cursor or turns the writing round.
                char if char.is_control() && char != '\n' => f.write_str("\u{fffd}")?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

impl Report {
    /// As one page of HTML that loads nothing; whatever the backend said is shown as text.
    pub fn html(&self) -> String {
        let mut page = String::new();
        // A string takes whatever is written to it.
        let _ = write(self, &mut page);
        page
    }
}

fn write(report: &Report, to: &mut String) -> fmt::Result {
    let backend = Text(&report.backend);
    write!(
        to,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>The laws: {backend}</title><style>{STYLE}</style></head><body>\n\
         <h1>The laws: {backend}</h1>\n<p>Service {}, version {}, depth {}: ",
        Text(&report.service),
        Text(&report.version),
        Text(&report.depth)
    )?;
    let count = |state| report.laws.iter().filter(|law| law.state == state).count();
    writeln!(
        to,
        "{} upheld, {} refused, {} violated.</p>\n\
         <table><tr><th>law</th><th>state</th><th>reach</th><th>evidence</th></tr>",
        count(State::Upheld),
        count(State::Refused),
        count(State::Violated)
    )?;
    for verdict in &report.laws {
        row(verdict, to)?;
    }
    to.write_str("</table>\n</body></html>\n")
}

fn row(verdict: &Verdict, to: &mut String) -> fmt::Result {
    let sentence = law::by_name(&verdict.law).map_or("", |law| law.sentence());
    let reach = match verdict.reach {
        Reach::Full => "full",
        Reach::Partial => "partial",
    };
    write!(
        to,
        "<tr id=\"{law}\"><th>{name}</th><td class=\"{state}\">{state}</td><td>{reach}</td><td><p>{}</p>",
        Text(sentence),
        law = Text(&verdict.law),
        name = Text(&verdict.law.replace('_', " ")),
        state = verdict.state,
    )?;
    if verdict.state == State::Violated {
        write!(to, "<pre>{}</pre>", Text(&verdict.why))?;
    }
    write!(
        to,
        "<details><summary>{}, {:.1} s</summary><ul>",
        Text(&verdict.evidence()),
        verdict.seconds
    )?;
    for case in &verdict.cases {
        item(case, to)?;
    }
    to.write_str("</ul></details></td></tr>\n")
}

fn item(case: &Case, to: &mut String) -> fmt::Result {
    let (how, what) = match &case.fate {
        Fate::Held { counts } => ("held", counts.to_string()),
        Fate::Broken { why } => ("broken", why.clone()),
        Fate::Empty { why } => ("empty", why.clone()),
        Fate::NotExercised { why } => ("not exercised", why.clone()),
    };
    let name = Text(&case.case);
    write!(to, "<li>{name}: {how}<pre>{}</pre></li>", Text(&what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Counts;

    #[test]
    fn what_a_backend_says_is_text_and_nothing_else() {
        let evil = "</pre><script>alert('x')</script>\u{1b}[31m&amp;";
        let cases = vec![
            Case {
                case: evil.into(),
                fate: Fate::Broken { why: evil.into() },
            },
            Case {
                case: "whole".into(),
                fate: Fate::Held {
                    counts: Counts::new().of(evil, 3, 1),
                },
            },
        ];
        let page = Report {
            backend: evil.into(),
            service: evil.into(),
            version: evil.into(),
            depth: "quick".into(),
            laws: vec![Verdict::of("range", false, cases, 0.5)],
        }
        .html();
        assert!(
            !page.contains("<script") && !page.contains('\u{1b}'),
            "{page}"
        );
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"), "{page}");
        assert!(page.contains("&amp;amp;"), "{page}");
        // The law's sentence, its state, and no address that a browser would ask.
        let sentence = law::by_name("range").unwrap().sentence();
        assert!(page.contains(&Text(sentence).to_string()), "{page}");
        assert!(page.contains("class=\"violated\""), "{page}");
        assert!(!page.contains("http"), "{page}");
    }
}
