//! The connection to one account and region, and how a call is made.

use std::{
    error::Error,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_iot::{
    Client,
    config::ProvideCredentials,
    error::{ProvideErrorMetadata, SdkError},
};

use crate::{
    failure::CallError,
    limits::{Api, Buckets, Limit},
};

/// The pause before a call is tried again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(15);

/// How often the SDK itself tries a call before it is ours to wait.
const ATTEMPTS: u32 = 3;

/// Which account, and how it may be used.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The region; the SDK's usual chain if absent.
    pub region: Option<String>,
    /// The profile of the AWS configuration; the SDK's usual chain if absent.
    pub profile: Option<String>,
    /// The address of the API; the SDK's usual chain if absent.
    pub endpoint: Option<String>,
    /// The account's limits.
    pub limits: Vec<Limit>,
    /// For how long an unavailable AWS is waited for; without end if absent.
    pub give_up_after: Option<Duration>,
}

/// Why AWS cannot be asked anything.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no region.
    #[error("no region is set; say --region, or set AWS_REGION or the profile's region")]
    NoRegion,
    /// There are no credentials.
    #[error(
        "there are no AWS credentials: {0}; set AWS_PROFILE, or whatever the AWS CLI takes, and try \"aws sts get-caller-identity\""
    )]
    NoCredentials(String),
}

/// A connection to AWS IoT in one account and region. It may be used by many tasks at a time.
#[derive(Debug)]
pub struct Platform {
    pub(super) iot: Client,
    region: String,
    buckets: Buckets,
    give_up_after: Option<Duration>,
    /// Whether an outage was told of that has not ended.
    away: AtomicBool,
}

/// The SDK's configuration by its usual chain: environment, profile, container or instance.
///
/// # Errors
/// No region, or no credentials.
pub async fn sdk_config(settings: &Settings) -> Result<SdkConfig, ConnectError> {
    let timeouts =
        TimeoutConfig::builder().connect_timeout(Duration::from_secs(5)).operation_attempt_timeout(ATTEMPT).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::adaptive().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts);
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(endpoint) = &settings.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let config = loader.load().await;
    if config.region().is_none() {
        return Err(ConnectError::NoRegion);
    }
    let Some(provider) = config.credentials_provider() else {
        return Err(ConnectError::NoCredentials("no source of them is configured".into()));
    };
    provider.provide_credentials().await.map_err(|error| {
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        ConnectError::NoCredentials(cause)
    })?;
    Ok(config)
}

impl Platform {
    /// Prepares calls; makes none.
    ///
    /// # Errors
    /// No region, or no credentials.
    pub async fn connect(settings: &Settings) -> Result<Platform, ConnectError> {
        let config = sdk_config(settings).await?;
        Ok(Platform::new(&config, settings))
    }

    /// The same with a configuration that is there.
    pub fn new(config: &SdkConfig, settings: &Settings) -> Platform {
        Platform {
            iot: Client::new(config),
            region: config.region().map(|region| region.to_string()).unwrap_or_default(),
            buckets: Buckets::new(&settings.limits),
            give_up_after: settings.give_up_after,
            away: AtomicBool::new(false),
        }
    }

    /// The region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Whether AWS does not take calls just now.
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Where devices connect to: the host name of the data endpoint.
    ///
    /// # Errors
    /// The call failed.
    pub async fn device_endpoint(&self) -> Result<String, CallError> {
        let request = self.iot.describe_endpoint().endpoint_type("iot:Data-ATS");
        let answer = self.call(Api::DescribeEndpoint, || request.clone().send()).await?;
        answer.endpoint_address.ok_or_else(|| CallError::without(Api::DescribeEndpoint, "endpointAddress"))
    }

    /// Makes a call when it is its API's turn, and again while it may succeed later.
    pub(super) async fn call<T, E, Answer>(&self, api: Api, request: impl Fn() -> Answer) -> Result<T, CallError>
    where
        E: ProvideErrorMetadata + Error + 'static,
        Answer: Future<Output = Result<T, SdkError<E>>>,
    {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            self.buckets.take(api).await;
            let error = match request().await {
                Ok(answer) => {
                    self.answered();
                    crate::metrics::call(api, "ok");
                    return Ok(answer);
                }
                Err(error) => CallError::new(api, &error),
            };
            crate::metrics::call(api, &error.code);
            if !error.is_transient() {
                self.answered();
                return Err(error);
            }
            if self.give_up_after.is_some_and(|limit| begun.elapsed() + pause > limit) {
                return Err(error);
            }
            self.does_not_answer(&error);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn does_not_answer(&self, error: &CallError) {
        if !self.away.swap(true, Ordering::Relaxed) {
            tracing::warn!("AWS does not take calls; will keep trying: {error}");
        }
    }

    fn answered(&self) {
        if self.away.load(Ordering::Relaxed) && self.away.swap(false, Ordering::Relaxed) {
            tracing::info!("AWS takes calls again");
        }
    }
}
