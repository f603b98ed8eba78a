//! Events of first connections from an SQS queue, which a topic rule feeds: they make it quicker, and nothing depends on
//! them. An event is only a hint which certificate to look at.

use std::time::Duration;

use aws_sdk_sqs::{Client, error::DisplayErrorContext};
use serde::Deserialize;

use super::activator::Activator;
use crate::{arn::CertificateId, metrics};

/// How long the queue is waited for at a time, in seconds: the longest that SQS allows.
const WAIT: i32 = 20;

/// The pause after the queue failed.
const PAUSE: Duration = Duration::from_secs(5);

/// What is used of an event; other fields come and go.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "certificateId")]
    certificate_id: String,
}

fn certificate(body: &str) -> Option<CertificateId> {
    serde_json::from_str::<Event>(body).ok()?.certificate_id.parse().ok()
}

impl Activator {
    pub(super) async fn take_events(&self, sqs: Client, url: &str) {
        let mut told = false;
        loop {
            let received = sqs.receive_message().queue_url(url).wait_time_seconds(WAIT).max_number_of_messages(10);
            let messages = match received.send().await {
                Ok(received) => received.messages.unwrap_or_default(),
                Err(error) => {
                    if !told {
                        let error = DisplayErrorContext(&error);
                        tracing::error!("the queue gives no events, the sweep goes on without them: {error}");
                    }
                    told = true;
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            told = false;
            for message in messages {
                metrics::event();
                let settled = match message.body().and_then(certificate) {
                    Some(id) => self.settle_event(&id).await.map_err(|error| error.to_string()),
                    None => {
                        tracing::warn!("an event of the queue names no certificate; it is dropped");
                        Ok(())
                    }
                };
                match (settled, message.receipt_handle()) {
                    (Ok(()), Some(handle)) => {
                        // If it stays it comes again, and nothing is done then.
                        let _ = sqs.delete_message().queue_url(url).receipt_handle(handle).send().await;
                    }
                    (Ok(()), None) => {}
                    // It comes again, and the sweep sees the certificate too.
                    (Err(error), _) => tracing::warn!("an event is not settled yet: {error}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever stands in the other fields, an event names its certificate.
    #[test]
    fn event_is_read_whatever_its_other_fields_hold() {
        let id = "ec92".repeat(16);
        for timestamp in ["null", "1795618122638", "\"1795618122638\""] {
            let body = format!(
                r#"{{"certificateId":"{id}","certificateRegistrationTimestamp":{timestamp},"awsAccountId":0,"sourceIp":{{}},"new":[]}}"#
            );
            assert_eq!(certificate(&body).map(|id| id.to_string()), Some(id.clone()));
        }
        for body in ["", "{}", "[]", r#"{"certificateId":"x"}"#, r#"{"certificateId":7}"#] {
            assert_eq!(certificate(body), None, "{body}");
        }
    }
}
