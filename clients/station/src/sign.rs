//! Signs every device of an input.

use std::{fs, path::PathBuf, sync::Arc};

use birthmark_base::{id::OrderId, quote::quoted};
use birthmark_client::Daemon;
use tokio::sync::watch;

use self::session::Session;
use super::{
    input::Input,
    output::{Output, Report, Summary},
    places::{FolderError, Places},
    progress::Progress,
    source,
};

pub use self::job::{End, Job, Stop};

mod job;
mod session;

/// Signs until the input ends, the user stops it, or nothing can go on. What was written is always in the summary.
/// `report` gets one JSON object for each device and a summary; `stop` may change once.
pub async fn run(
    daemon: &Daemon,
    job: Job,
    progress: Arc<Progress>,
    report: Option<Report>,
    stop: watch::Receiver<Option<Stop>>,
) -> (Summary, End) {
    let watched = match &job.input {
        Input::Watch { folder, .. } => Some(folder.clone()),
        _ => None,
    };
    let places = Arc::new(Places::new(job.out.clone(), job.chain, watched));
    let output = Output::new(places.clone(), progress.clone(), job.order.clone(), job.profile.clone(), report);
    match check(&job).and_then(|()| Ok(places.make()?)) {
        Ok(warnings) => warnings.iter().for_each(|warning| progress.say(&warning.to_string())),
        Err(error) => {
            let message = error.to_string();
            return (output.finish(Some(&message)), End::Failed(message));
        }
    }

    let (outcomes, writer) = output.start(job.window);
    let items = source::start(job.input.clone(), places.clone(), progress.clone(), job.window);
    let session = Session::new(daemon, job, items, outcomes, (places, progress.clone()), stop);
    // With the session its sender goes: the writer writes what it has and ends.
    let end = tokio::select! {
        end = session.run() => end,
        () = progress.print_lines() => End::Done,
    };
    let (output, end) = match tokio::task::spawn_blocking(move || writer.join()).await {
        Ok(Ok((output, Ok(())))) => (output, end),
        Ok(Ok((output, Err(error)))) => (output, End::Failed(error.to_string())),
        _ => return (Summary::default(), End::Failed("the writer of certificates ended unexpectedly".to_owned())),
    };
    let ended = match &end {
        End::Done => None,
        End::Stopped(_) => Some("stopped"),
        End::Failed(message) => Some(message.as_str()),
    };
    (output.finish(ended), end)
}

/// Why a run cannot begin.
#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error("{} cannot be the id of an order", quoted(.0))]
    Order(String),
    #[error("name an order with --order, a profile with --profile, or both")]
    Neither,
    #[error("CSRs and certificates cannot share the folder {}: a certificate could replace a CSR", .0.display())]
    SharedFolder(PathBuf),
    #[error(transparent)]
    Folder(#[from] FolderError),
}

fn check(job: &Job) -> Result<(), JobError> {
    // Lines may name their own.
    let lines = matches!(job.input, Input::Lines(_) | Input::StandardInput);
    if job.order.is_empty() && job.profile.is_empty() && !lines {
        return Err(JobError::Neither);
    }
    if !job.order.is_empty() && OrderId::check(&job.order).is_err() {
        return Err(JobError::Order(job.order.clone()));
    }
    if let Input::Folder(folder) | Input::Watch { folder, .. } = &job.input
        && let Some(out) = &job.out
        && let (Ok(folder), Ok(out)) = (fs::canonicalize(folder), fs::canonicalize(out))
        && folder == out
    {
        return Err(JobError::SharedFolder(out));
    }
    Ok(())
}
