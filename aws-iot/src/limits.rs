//! How often each API may be called: the account's own limits, one token bucket for each.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

macro_rules! apis {
    ($($name:ident $rate:literal)*) => {
        /// The calls of AWS IoT that are made here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "AWS IoT's own names")]
        pub enum Api { $($name),* }

        impl Api {
            /// All of them.
            pub const ALL: &'static [Api] = &[$(Api::$name),*];

            /// As AWS calls it.
            pub fn name(self) -> &'static str {
                match self { $(Api::$name => stringify!($name)),* }
            }

            /// How often an account may call it, per second, unless AWS has raised its limit.
            pub fn usual_rate(self) -> f64 {
                match self { $(Api::$name => $rate),* }
            }
        }
    };
}

apis! {
    AddThingToThingGroup 100.0
    AttachPolicy 15.0
    AttachThingPrincipal 100.0
    CreateThing 100.0
    DescribeCACertificate 10.0
    DescribeCertificate 10.0
    DescribeEndpoint 10.0
    DescribeThingGroup 10.0
    DescribeThingType 10.0
    DetachThingPrincipal 100.0
    GetPolicy 10.0
    GetRegistrationCode 10.0
    ListCACertificates 10.0
    ListCertificates 10.0
    ListCertificatesByCA 10.0
    ListPrincipalThings 10.0
    ListThingPrincipals 10.0
    RegisterCACertificate 10.0
    RegisterCertificate 10.0
    RegisterCertificateWithoutCA 10.0
    UpdateCACertificate 10.0
    UpdateCertificate 10.0
    UpdateThing 100.0
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A limit as it is written on the command line: `RegisterCertificate=50`, or `all=50`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    api: Option<Api>,
    rate: f64,
}

/// The text is no limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimit {
    /// There is no such API.
    #[error("there is no API {}; it is \"all\" or one of {}", birthmark::quote::quoted(.0), names())]
    Api(String),
    /// The number is none.
    #[error(
        "a limit is API=RATE with a number of calls a second above 0 and up to 100000, such as RegisterCertificate=50"
    )]
    Rate,
}

fn names() -> String {
    Api::ALL.iter().map(|api| api.name()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Limit {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let (name, rate) = text.split_once('=').ok_or(InvalidLimit::Rate)?;
        let rate = rate.trim().parse::<f64>().ok().filter(|rate| *rate > 0.0 && *rate <= 100_000.0);
        let rate = rate.ok_or(InvalidLimit::Rate)?;
        let api = match name.trim() {
            "all" => None,
            name => {
                let known = Api::ALL.iter().find(|api| api.name() == name);
                Some(*known.ok_or_else(|| InvalidLimit::Api(name.to_owned()))?)
            }
        };
        Ok(Limit { api, rate })
    }
}

/// One bucket for each API. A bucket holds one token: calls are spaced evenly, so that the account's other users of the
/// API are never pushed aside by a burst.
#[derive(Debug)]
pub struct Buckets(BTreeMap<Api, Bucket>);

#[derive(Debug)]
struct Bucket {
    interval: Duration,
    next: Mutex<Instant>,
}

impl Buckets {
    /// With the usual limits, changed by these; a later one wins, and a named API over `all`.
    pub fn new(limits: &[Limit]) -> Self {
        let bucket = |api: Api| {
            let named = limits.iter().rev().find(|limit| limit.api == Some(api));
            let limit = named.or_else(|| limits.iter().rev().find(|limit| limit.api.is_none()));
            let rate = limit.map_or(api.usual_rate(), |limit| limit.rate);
            Bucket { interval: Duration::from_secs_f64(1.0 / rate), next: Mutex::new(Instant::now()) }
        };
        Buckets(Api::ALL.iter().map(|api| (*api, bucket(*api))).collect())
    }

    /// Waits until the API may be called once more.
    pub async fn take(&self, api: Api) {
        let Some(bucket) = self.0.get(&api) else { return };
        let at = {
            let mut next = bucket.next.lock().await;
            let at = (*next).max(Instant::now());
            *next = at + bucket.interval;
            at
        };
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A limit names an API, and a wrong one is told what there is.
    #[test]
    fn limit_names_an_api_and_a_rate() {
        assert_eq!("all=50".parse(), Ok(Limit { api: None, rate: 50.0 }));
        assert_eq!("CreateThing=0.5".parse(), Ok(Limit { api: Some(Api::CreateThing), rate: 0.5 }));
        for wrong in ["CreateThing", "CreateThing=0", "CreateThing=-1", "CreateThing=inf", "CreateThing=x"] {
            assert_eq!(wrong.parse::<Limit>(), Err(InvalidLimit::Rate), "{wrong}");
        }
        let error = "creatething=1".parse::<Limit>().map_err(|error| error.to_string()).unwrap_err();
        assert!(error.contains("RegisterCertificateWithoutCA"), "{error}");
    }

    /// No second ever has more calls than the limit, however many ask at once.
    #[tokio::test(start_paused = true)]
    async fn bucket_never_exceeds_its_rate() {
        let limits: Vec<Limit> =
            ["RegisterCertificate=50", "all=1000"].iter().map(|limit| limit.parse().unwrap()).collect();
        let buckets = Buckets::new(&limits);
        let begun = Instant::now();
        let calls = (0..200).map(|_| async {
            buckets.take(Api::RegisterCertificate).await;
            begun.elapsed()
        });
        let mut times = futures_util::future::join_all(calls).await;
        times.sort();
        assert_eq!(times.len(), 200);
        for (index, at) in times.iter().enumerate() {
            let fifty_later = times.get(index + 50);
            assert!(fifty_later.is_none_or(|later| *later - *at >= Duration::from_millis(999)), "{index}: {at:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        // Another API has a bucket of its own.
        buckets.take(Api::CreateThing).await;
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
