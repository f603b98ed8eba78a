//! `birthmark station check`

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use birthmark_base::{console::columns, quote::quoted};
use birthmark_client::{
    Client,
    proto::{CheckReply, moment, rfc3339},
};
use jiff::Timestamp;
use serde_json::json;

use super::{
    connection::DaemonArgs,
    shared::{block_on, print, print_json},
};

pub(super) const AFTER: &str = "\
Exit codes:
  0  the shift can begin, perhaps with a warning
  1  it cannot: a line begins with FAIL, or the daemon could not be asked
  2  wrong usage";

#[doc(hidden)]
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The order of the shift
    #[arg(long, value_name = "ID")]
    order: Option<String>,

    /// The profile of the certificates [default: the order's]. With either of them the HSM is tried too
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,

    #[command(flatten)]
    daemon: DaemonArgs,
}

/// A clock that differs more than this is warned about; with this much more nothing fits together.
const SKEW: Duration = Duration::from_secs(2);
const FAR_OFF: Duration = Duration::from_secs(300);

/// When a certificate's end is warned about, in days.
const DAYS: i64 = 14;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    Good,
    Warning,
    Failed,
}

impl Grade {
    fn as_str(self) -> &'static str {
        match self {
            Grade::Good => "ok",
            Grade::Warning => "warn",
            Grade::Failed => "FAIL",
        }
    }
}

type Line = (Grade, &'static str, String);

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = Client::from(args.daemon.connection.daemon()?).patience(Duration::ZERO);
    let (order, profile) = (args.order.as_deref().unwrap_or_default(), args.profile.as_deref().unwrap_or_default());
    let (reply, taken) = block_on(async {
        let begun = Instant::now();
        let reply = client.check(order, profile).await?;
        Ok((reply, begun.elapsed()))
    })?;
    let lines = lines(&args, &reply, taken);
    let failed = lines.iter().any(|(grade, ..)| *grade == Grade::Failed);
    if args.daemon.json {
        let checks = lines.iter().map(
            |(grade, check, text)| json!({ "check": check, "result": grade.as_str().to_lowercase(), "message": text }),
        );
        print_json(&json!({ "name": reply.name, "ok": !failed, "checks": checks.collect::<Vec<_>>() }))?;
    } else {
        let rows: Vec<_> = lines
            .into_iter()
            .map(|(grade, check, text)| vec![grade.as_str().to_owned(), check.to_owned(), text])
            .collect();
        print(&columns(&["", "CHECK", &reply.name], &rows))?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn lines(args: &Args, reply: &CheckReply, taken: Duration) -> Vec<Line> {
    let mut lines = vec![clock(reply, taken)];
    lines.extend(certificate(reply));
    lines.push(match reply.obstacles.as_slice() {
        [] => (Grade::Good, "daemon", "ready".to_owned()),
        obstacles => (Grade::Failed, "daemon", format!("not ready: {}", obstacles.join("; "))),
    });
    lines.extend(reply.warnings.iter().map(|warning| (Grade::Warning, "daemon", warning.clone())));
    lines.extend(order(args, reply));
    lines.extend(profile(args, reply));
    lines
}

fn clock(reply: &CheckReply, taken: Duration) -> Line {
    let Some(theirs) = reply.time.as_ref().and_then(|time| moment(time).ok()) else {
        return (Grade::Failed, "clock", "the daemon tells no time".to_owned());
    };
    let ours = Timestamp::now();
    let apart = Duration::try_from(ours.duration_since(theirs).abs()).unwrap_or_default().saturating_sub(taken);
    let text = match apart < Duration::from_millis(100) {
        true => format!("as the daemon's, {ours:.0}"),
        false => format!("{:.1} s from the daemon's, {theirs:.0}", apart.as_secs_f64()),
    };
    let grade = match apart {
        apart if apart > FAR_OFF => Grade::Failed,
        apart if apart > SKEW => Grade::Warning,
        _ => Grade::Good,
    };
    (grade, "clock", text)
}

fn certificate(reply: &CheckReply) -> Option<Line> {
    let time = reply.certificate_not_after.as_ref()?;
    let not_after = moment(time).ok()?;
    let days = not_after.duration_since(Timestamp::now()).as_hours() / 24;
    let grade = if days < DAYS { Grade::Warning } else { Grade::Good };
    Some((grade, "certificate", format!("valid for {days} days, until {}", rfc3339(time).unwrap_or_default())))
}

fn order(args: &Args, reply: &CheckReply) -> Option<Line> {
    let id = args.order.as_ref()?;
    let Some(order) = &reply.order else {
        return Some((Grade::Failed, "order", format!("there is no order {}", quoted(id))));
    };
    let terms = order.terms.clone().unwrap_or_default();
    let state = order.state(Timestamp::now());
    let text = format!("{id} is {state}; {} of {} left", order.left, terms.quantity);
    let other = args.profile.as_ref().filter(|profile| **profile != terms.profile);
    Some(match (state, other) {
        ("open", None) => (Grade::Good, "order", text),
        (_, Some(_)) => (Grade::Failed, "order", format!("{id} is for the profile {}", quoted(&terms.profile))),
        (_, None) => (Grade::Failed, "order", text),
    })
}

fn profile(args: &Args, reply: &CheckReply) -> Vec<Line> {
    let of_order = reply.order.as_ref().and_then(|order| Some(&order.terms.as_ref()?.profile));
    let Some(profile) = args.profile.as_ref().or(of_order) else { return Vec::new() };
    if !reply.profiles.contains(profile) {
        let usable = match reply.profiles.as_slice() {
            [] => "none".to_owned(),
            profiles => profiles.join(", "),
        };
        let text = format!("{} may not use {}; it may use: {usable}", reply.name, quoted(profile));
        return vec![(Grade::Failed, "profile", text)];
    }
    let hsm = match &reply.hsm_round_trip {
        Some(taken) => {
            let milliseconds = taken.seconds as f64 * 1e3 + f64::from(taken.nanos) / 1e6;
            (Grade::Good, "HSM", format!("a signature took {milliseconds:.1} ms"))
        }
        None => (Grade::Failed, "HSM", reply.hsm_failure.clone()),
    };
    vec![(Grade::Good, "profile", format!("{} may be used", quoted(profile))), hsm]
}
