//! What a metric is: its kind, unit and labels.

/// How its value changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only grows, from 0 when the daemon starts.
    Counter,
    /// It is what it is at the moment.
    Gauge,
    /// How often something took how long, or had how many.
    Histogram,
}

/// What its value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Things.
    Number,
    /// 1 is yes, 0 no.
    Flag,
    Seconds,
    Bytes,
    /// A moment, in seconds since 1970.
    Moment,
}

/// A label: its name, and what values it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(pub(crate) &'static str, pub(crate) &'static str);

/// A metric.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    pub(crate) kind: Kind,
    pub(crate) name: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "docs/metrics.md says it"))]
    pub(crate) unit: Unit,
    pub(crate) labels: &'static [Label],
    pub(crate) help: &'static str,
}

/// Metrics that answer questions of one kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    #[cfg_attr(not(test), expect(dead_code, reason = "docs/metrics.md says it"))]
    pub(crate) name: &'static str,
    pub(crate) metrics: &'static [Metric],
}

/// Declares the names, and the table of all subjects.
macro_rules! subjects {
    ($($subject:literal { $($kind:ident $constant:ident $name:literal $unit:ident [$($label:ident)*] $help:literal;)* })*) => {
        $($(pub(crate) const $constant: &str = concat!("birthmark_", $name);)*)*

        /// Every metric there is.
        pub(crate) const SUBJECTS: &[Subject] = &[$(Subject {
            name: $subject,
            metrics: &[$(Metric {
                kind: Kind::$kind,
                name: concat!("birthmark_", $name),
                unit: Unit::$unit,
                labels: &[$($label),*],
                help: $help,
            }),*],
        }),*];
    };
}
pub(super) use subjects;
