//! `birthmark order`

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use anyhow::{Context, anyhow};
use birthmark::{
    client::Failure,
    pattern::{self, Pattern},
    proto::{
        ChangeOrderRequest, CloseOrderRequest, CreateOrderRequest, FirstPass, GetOrderRequest, ListAuditRequest,
        ListOrdersRequest, Order, OrderTerms, PauseOrderRequest, ResumeOrderRequest, StationFirstPass, rfc3339,
        timestamp,
    },
};
use clap::{Subcommand, value_parser};
use serde_json::json;

use super::{audit, block_on, daemon::DaemonArgs, device_list, moment::moment, print, print_json, table};

/// Manage production orders
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create an order; creating it again with the same terms changes nothing
    Create(CreateArgs),
    /// List orders with their counts
    List(ListArgs),
    /// Show one order
    Show(ShowArgs),
    /// Close an order: nothing more is issued under it
    Close(OneArgs),
    /// Raise or lower an order's quantity, never below what is issued
    Change(ChangeArgs),
    /// List the devices that an order is for, and which of them have no certificate yet
    Devices(DevicesArgs),
    /// Let nothing be issued under an order until it is resumed
    Pause(PauseArgs),
    /// Let an order that is paused go on
    Resume(OneArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only orders in this state: open, scheduled, paused, incomplete (its list), complete, expired or closed; may be repeated
    #[arg(long, value_name = "STATE", value_parser = STATES)]
    state: Vec<String>,

    /// Only orders for this profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,

    /// Only orders that this station, <line>/<station>, may use
    #[arg(long, value_name = "STATION")]
    station: Option<String>,

    /// Only orders created at or after this moment
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<jiff::Timestamp>,

    /// Print CSV, with all times in UTC
    #[arg(long, conflicts_with = "json")]
    csv: bool,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct ChangeArgs {
    /// The order's id
    id: String,

    /// How many certificates may be issued from now on
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    quantity: u64,

    /// Why, for people: at most 256 characters
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct DevicesArgs {
    /// The order's id
    id: String,

    /// Only those that have no live certificate of the order
    #[arg(long)]
    missing: bool,

    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct PauseArgs {
    /// The order's id
    id: String,

    /// Why, for people: at most 256 characters
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,

    #[command(flatten)]
    daemon: DaemonArgs,
}

const STATES: [&str; 7] = ["open", "scheduled", "paused", "incomplete", "complete", "expired", "closed"];

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The order's id: 1 to 64 characters of A-Z a-z 0-9 . _ : -, the first a letter or digit
    id: String,

    /// The one profile under which the order issues
    #[arg(long, value_name = "NAME")]
    profile: String,

    /// How many certificates may be issued [default with --devices: one for each device]
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..), required_unless_present = "devices")]
    quantity: Option<u64>,

    /// Only for the devices in this file: an id a line and, if its key is to be checked, a space or a comma and SHA-256 of the
    /// key's SubjectPublicKeyInfo in hexadecimal digits
    #[arg(long, value_name = "FILE")]
    devices: Option<PathBuf>,

    /// How many certificates may be issued on one day, from midnight to midnight UTC
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    per_day: Option<u64>,

    /// Issue nothing before this moment, such as 2026-03-01T06:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    not_before: Option<jiff::Timestamp>,

    /// Issue nothing at or after this moment
    #[arg(long, value_name = "TIME", value_parser = moment)]
    not_after: Option<jiff::Timestamp>,

    /// Only for stations that fit this pattern over <line>/<station>, such as "line1/*"; may be repeated
    #[arg(long = "station", value_name = "PATTERN")]
    stations: Vec<String>,

    /// A value that the order's certificates have where their profile has {order.NAME}; may be repeated
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The order's id
    id: String,

    /// Also every change of the order, by whom and when; reads the ledger from the order's beginning on
    #[arg(long)]
    changes: bool,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct OneArgs {
    /// The order's id
    id: String,

    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        match args.command {
            Command::Create(args) => create(args).await,
            Command::List(args) => list(args).await,
            Command::Show(args) => show(args).await,
            Command::Close(args) => {
                let mut admin = args.daemon.admin().await?;
                let order = admin.close_order(CloseOrderRequest { id: args.id }).await.map_err(Failure::from)?;
                print_one(&order.into_inner(), args.daemon.json)
            }
            Command::Change(ChangeArgs { id, quantity, reason, daemon }) => {
                let request = ChangeOrderRequest { id, quantity, reason };
                let order = daemon.admin().await?.change_order(request).await.map_err(Failure::from)?;
                print_one(&order.into_inner(), daemon.json)
            }
            Command::Devices(DevicesArgs { id, missing, csv, daemon }) => {
                device_list::show(daemon, id, (missing, csv)).await
            }
            Command::Pause(PauseArgs { id, reason, daemon }) => {
                let request = PauseOrderRequest { id, reason };
                let order = daemon.admin().await?.pause_order(request).await.map_err(Failure::from)?;
                print_one(&order.into_inner(), daemon.json)
            }
            Command::Resume(OneArgs { id, daemon }) => {
                let request = ResumeOrderRequest { id };
                let order = daemon.admin().await?.resume_order(request).await.map_err(Failure::from)?;
                print_one(&order.into_inner(), daemon.json)
            }
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    if let (Some(not_before), Some(not_after)) = (args.not_before, args.not_after)
        && not_before >= not_after
    {
        return Err(anyhow!("--not-after {not_after} is not later than --not-before {not_before}"));
    }
    let count = args.attributes.len();
    let attributes: BTreeMap<_, _> = args.attributes.into_iter().collect();
    if attributes.len() != count {
        return Err(anyhow!("an --attribute is given twice"));
    }
    let list = args.devices.as_deref().map(device_list::read).transpose()?;
    let terms = OrderTerms {
        id: args.id,
        profile: args.profile,
        quantity: args.quantity.or(list.as_ref().map(|list| list.len() as u64)).unwrap_or_default(),
        not_before: args.not_before.map(timestamp),
        not_after: args.not_after.map(timestamp),
        stations: args.stations,
        attributes,
        devices: list.as_ref().map_or(0, |list| list.len() as u64),
        devices_sha256: list.as_deref().map_or_else(Vec::new, |list| device_list::sha256(list).to_vec()).into(),
        per_day: args.per_day.unwrap_or(0),
    };
    let mut admin = args.daemon.admin().await?;
    let order = admin.create_order(CreateOrderRequest { terms: Some(terms) }).await.map_err(Failure::from)?;
    let mut order = order.into_inner();
    if let Some(list) = list {
        order = device_list::send(&mut admin, order, list).await?;
    }
    print_one(&order, args.daemon.json)
}

impl ListArgs {
    fn wants(&self, order: &Order) -> bool {
        let terms = order.terms.clone().unwrap_or_default();
        let since = self.since.map_or(i64::MIN, |since| since.as_second());
        (self.state.is_empty() || self.state.iter().any(|wanted| wanted == state(order)))
            && self.profile.as_ref().is_none_or(|profile| *profile == terms.profile)
            && order.created_at.as_ref().is_none_or(|created| created.seconds >= since)
            && self.station.as_ref().is_none_or(|station| {
                let patterns: Vec<_> = terms.stations.iter().cloned().map(Pattern::new).collect();
                pattern::allows(&patterns, station)
            })
    }
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut admin = args.daemon.admin().await?;
    let orders = admin.list_orders(ListOrdersRequest {}).await.map_err(Failure::from)?.into_inner().orders;
    let there_are_some = !orders.is_empty();
    let orders: Vec<_> = orders.into_iter().filter(|order| args.wants(order)).collect();
    if args.daemon.json {
        return print_json(&orders.iter().map(to_json).collect());
    }
    let rows: Vec<_> = orders.iter().map(row).collect();
    let headings =
        ["ORDER", "PROFILE", "STATE", ">QUANTITY", ">ISSUED", ">CONFIRMED", ">SCRAPPED", ">LEFT", "STATIONS"];
    if args.csv {
        let headings = [&headings[..], &["NOT BEFORE", "NOT AFTER", "CREATED", "CREATED BY"]].concat();
        let rows = rows.into_iter().zip(&orders).map(|(row, order)| [row, more(order)].concat());
        return print(&table::csv_table(&headings, &rows.collect::<Vec<_>>()));
    }
    match rows.is_empty() {
        true if there_are_some => print("no order is such\n"),
        true => print("there are no orders; \"birthmark order create\" makes one\n"),
        false => print(&table::columns(&headings, &rows)),
    }
}

fn row(order: &Order) -> Vec<String> {
    let terms = order.terms.clone().unwrap_or_default();
    let counts = [terms.quantity, order.issued, order.confirmed, order.scrapped, order.left];
    let mut row = vec![terms.id, terms.profile, state(order).to_owned()];
    row.extend(counts.map(|count| count.to_string()));
    row.push(if terms.stations.is_empty() { "all".to_owned() } else { terms.stations.join(" ") });
    row
}

/// What CSV has besides.
fn more(order: &Order) -> Vec<String> {
    let terms = order.terms.clone().unwrap_or_default();
    let times = [&terms.not_before, &terms.not_after, &order.created_at];
    let times = times.map(|time| time.as_ref().and_then(rfc3339).unwrap_or_default());
    times.into_iter().chain([order.created_by.clone()]).collect()
}

async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let mut admin = args.daemon.admin().await?;
    let order = admin.get_order(GetOrderRequest { id: args.id.clone() }).await.map_err(Failure::from)?.into_inner();
    if !args.changes {
        return print_one(&order, args.daemon.json);
    }
    let events = ["created", "quantity_changed", "paused", "resumed", "closed"].map(|what| format!("order_{what}"));
    let request = ListAuditRequest {
        since: order.created_at,
        events: events.into(),
        order: args.id,
        ..ListAuditRequest::default()
    };
    let changes = audit::entries(&args.daemon, request).await?;
    if args.daemon.json {
        let mut shown = to_json(&order);
        shown["changes"] =
            changes.iter().filter_map(|entry| serde_json::from_str::<serde_json::Value>(&entry.json).ok()).collect();
        return print_json(&shown);
    }
    print_one(&order, false)?;
    print(&format!("\n{}{}", audit::heading(), changes.iter().map(audit::row).collect::<String>()))
}

/// When something was done, and by whom.
fn done(at: &Option<prost_types::Timestamp>, by: &str) -> Option<String> {
    let at = at.as_ref().and_then(rfc3339)?;
    Some(if by.is_empty() { at } else { format!("{at} by {by}") })
}

fn print_one(order: &Order, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&to_json(order));
    }
    let terms = order.terms.clone().unwrap_or_default();
    let text = table::fields(&[
        ("order", Some(terms.id)),
        ("profile", Some(terms.profile)),
        ("state", Some(state(order).to_owned())),
        ("quantity", Some(terms.quantity.to_string())),
        ("issued", Some(order.issued.to_string())),
        ("confirmed", Some(order.confirmed.to_string())),
        ("revoked", Some(order.revoked.to_string())),
        ("reserved", Some(order.reserved.to_string())),
        ("left", Some(order.left.to_string())),
        ("scrapped", Some(order.scrapped.to_string())),
        ("not before", terms.not_before.as_ref().and_then(rfc3339)),
        ("not after", terms.not_after.as_ref().and_then(rfc3339)),
        ("devices", (terms.devices > 0).then(|| format!("{} of {} listed", order.devices_listed, terms.devices))),
        ("per day", (terms.per_day > 0).then(|| format!("{}, {} today (UTC)", terms.per_day, order.reserved_today))),
        ("stations", Some(if terms.stations.is_empty() { "all".to_owned() } else { terms.stations.join(" ") })),
        ("first pass", order.first_pass.as_ref().filter(|passes| passes.tried > 0).map(first_pass_text)),
        ("attributes", (!terms.attributes.is_empty()).then(|| attributes(&terms.attributes))),
        ("created", done(&order.created_at, &order.created_by)),
        ("quantity changed", done(&order.quantity_changed_at, &order.quantity_changed_by)),
        ("paused", done(&order.paused_at, &order.paused_by)),
        ("why", (!order.pause_reason.is_empty()).then(|| order.pause_reason.clone())),
        ("closed", done(&order.closed_at, &order.closed_by)),
    ]);
    print(&text)
}

/// `97.5 % of 40 devices; line1/t1 95 % of 20; …`, the stations if there are several.
fn first_pass_text(passes: &FirstPass) -> String {
    let yields = |first: u64, tried: u64| format!("{:.1} % of {tried}", share(first, tried) * 100.0);
    let mut text = format!("{} devices", yields(passes.first, passes.tried));
    for StationFirstPass { station, tried, first, .. } in passes.stations.iter().filter(|_| passes.stations.len() > 1) {
        let station = if station.is_empty() { "by themselves" } else { station };
        text.push_str(&format!("; {station} {}", yields(*first, *tried)));
    }
    text
}

fn share(first: u64, tried: u64) -> f64 {
    if tried == 0 { 0.0 } else { first as f64 / tried as f64 }
}

fn first_pass_json(passes: &FirstPass) -> serde_json::Value {
    let yields = |first: u64, tried: u64| (tried > 0).then(|| share(first, tried));
    json!({
        "tried": passes.tried,
        "first": passes.first,
        "later": passes.later,
        "refused": passes.refused,
        "yield": yields(passes.first, passes.tried),
        "stations": passes.stations.iter().map(|station| json!({
            "station": station.station,
            "tried": station.tried,
            "first": station.first,
            "later": station.later,
            "refused": station.refused,
            "yield": yields(station.first, station.tried),
        })).collect::<Vec<_>>(),
    })
}

/// Its state at this moment.
fn state(order: &Order) -> &'static str {
    order.state(jiff::Timestamp::now())
}

fn to_json(order: &Order) -> serde_json::Value {
    let terms = order.terms.clone().unwrap_or_default();
    json!({
        "id": terms.id,
        "profile": terms.profile,
        "state": state(order),
        "closed": order.closed,
        "quantity": terms.quantity,
        "issued": order.issued,
        "reserved": order.reserved,
        "left": order.left,
        "confirmed": order.confirmed,
        "scrapped": order.scrapped,
        "revoked": order.revoked,
        "not_before": terms.not_before.as_ref().and_then(rfc3339),
        "not_after": terms.not_after.as_ref().and_then(rfc3339),
        "stations": terms.stations,
        "attributes": terms.attributes,
        "devices": terms.devices,
        "devices_listed": order.devices_listed,
        "per_day": terms.per_day,
        "reserved_today": order.reserved_today,
        "first_pass": order.first_pass.as_ref().map(first_pass_json),
        "created_at": order.created_at.as_ref().and_then(rfc3339),
        "created_by": order.created_by,
        "quantity_changed_at": order.quantity_changed_at.as_ref().and_then(rfc3339),
        "quantity_changed_by": order.quantity_changed_by,
        "paused_at": order.paused_at.as_ref().and_then(rfc3339),
        "paused_by": order.paused_by,
        "pause_reason": order.pause_reason,
        "closed_at": order.closed_at.as_ref().and_then(rfc3339),
        "closed_by": order.closed_by,
    })
}

fn attributes(attributes: &BTreeMap<String, String>) -> String {
    attributes.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}

fn attribute(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text.split_once('=').context("an attribute is written as NAME=VALUE, such as batch=A7")?;
    Ok((name.to_owned(), value.to_owned()))
}
