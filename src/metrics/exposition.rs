//! The two forms of the text: Prometheus' own, and OpenMetrics'.

/// The media type of Prometheus' text.
pub(crate) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The media type of OpenMetrics' text.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether a client that accepts these media types takes OpenMetrics. Prometheus names it before its own.
pub(crate) fn wants_open_metrics(accept: &str) -> bool {
    accept.split(',').any(|kind| kind.trim().starts_with("application/openmetrics-text"))
}

/// Prometheus' text as OpenMetrics has it: a counter's family is named without `_total`, bounds of buckets are floats, no line
/// is empty, and the end is marked.
pub(crate) fn open_metrics(text: &str) -> String {
    let counters: Vec<_> = text.lines().filter_map(counter_family).collect();
    let mut converted = String::with_capacity(text.len() + 64);
    for line in text.lines().filter(|line| !line.is_empty()) {
        let family = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        match family.and_then(|rest| rest.split_once(' ')) {
            Some((name, rest)) if counters.contains(&name) => {
                let word = line.get(..7).unwrap_or_default();
                let family = name.strip_suffix("_total").unwrap_or(name);
                converted.extend([word, family, " ", rest]);
            }
            Some(_) => converted.push_str(line),
            None => sample(&mut converted, line),
        }
        converted.push('\n');
    }
    converted.push_str("# EOF\n");
    converted
}

fn counter_family(line: &str) -> Option<&str> {
    line.strip_prefix("# TYPE ")?.strip_suffix(" counter")
}

/// Bounds are written as the standard writes numbers.
fn sample(converted: &mut String, line: &str) {
    const BOUND: &str = "le=\"";
    let bound = line.rfind(BOUND).map(|at| at + BOUND.len()).filter(|_| line.contains("_bucket{"));
    let parts = bound.and_then(|begin| {
        let (before, rest) = line.split_at_checked(begin)?;
        let (number, after) = rest.split_once('"')?;
        Some((before, number.parse().ok().filter(|number: &f64| number.is_finite())?, after))
    });
    match parts {
        Some((before, number, after)) => converted.extend([before, &canonical(number), "\"", after]),
        None => converted.push_str(line),
    }
}

/// As in "1.0", "0.5", "2e-05" (OpenMetrics 1.0, "Considerations: Canonical Numbers").
fn canonical(number: f64) -> String {
    let text = format!("{number:?}");
    match text.split_once("e-") {
        Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_text_is_what_its_standard_wants() {
        let text = "# HELP a_total What\n# TYPE a_total counter\na_total{x=\"a_total counter\"} 1\n\n\
                    # HELP b What\n# TYPE b gauge\nb 2\n\n\
                    # TYPE c histogram\nc_bucket{le=\"0.00002\"} 0\nc_bucket{le=\"1\"} 1\nc_bucket{y=\"le=\\\"2\",le=\"0.5\"} 1\nc_bucket{le=\"+Inf\"} 3\n\n";
        let expected = "# HELP a What\n# TYPE a counter\na_total{x=\"a_total counter\"} 1\n\
                        # HELP b What\n# TYPE b gauge\nb 2\n\
                        # TYPE c histogram\nc_bucket{le=\"2e-05\"} 0\nc_bucket{le=\"1.0\"} 1\nc_bucket{y=\"le=\\\"2\",le=\"0.5\"} 1\nc_bucket{le=\"+Inf\"} 3\n# EOF\n";
        assert_eq!(open_metrics(text), expected);
        assert!(wants_open_metrics("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"));
        assert!(!wants_open_metrics("text/plain;version=0.0.4;q=0.5,*/*;q=0.1"));
    }
}
