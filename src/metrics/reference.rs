//! docs/metrics.md, made of the list.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    list::SUBJECTS,
    metric::{Kind, Label, Metric, Subject, Unit},
};

/// What the file begins with: what its reader wants to do.
const BEGINNING: &str = include_str!("reference_beginning.md");

/// What it ends with.
const END: &str = include_str!("reference_end.md");

pub(super) fn text() -> String {
    let mut text = BEGINNING.to_owned();
    for Subject { name, metrics } in SUBJECTS {
        let _ = writeln!(text, "### {name}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|");
        for metric in *metrics {
            row(&mut text, metric);
        }
        text.push('\n');
    }
    // Where metrics mean different things by a label, each meaning has its metrics.
    let mut labels = BTreeMap::<_, BTreeMap<_, Vec<_>>>::new();
    for metric in SUBJECTS.iter().flat_map(|subject| subject.metrics) {
        for Label(name, values) in metric.labels {
            labels.entry(*name).or_default().entry(*values).or_default().push(format!("`{}`", metric.name));
        }
    }
    text.push_str("### Labels\n\n| label | values |\n|---|---|\n");
    for (name, meanings) in labels {
        let one = meanings.len() == 1;
        for (values, metrics) in meanings {
            let of = if one { String::new() } else { format!(" of {}", metrics.join(", ")) };
            let _ = writeln!(text, "| `{name}`{of} | {values} |");
        }
    }
    text.push('\n');
    text + END
}

fn row(text: &mut String, Metric { kind, name, unit, labels, help }: &Metric) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let unit = match unit {
        Unit::Number => "",
        Unit::Flag => ", 0 or 1",
        Unit::Seconds => ", seconds",
        Unit::Bytes => ", bytes",
        Unit::Moment => ", Unix time",
    };
    let labels: Vec<_> = labels.iter().map(|Label(name, _)| format!("`{name}`")).collect();
    let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
    let _ = writeln!(text, "| `{name}` | {kind}{unit} | {labels} | {help} |");
}
