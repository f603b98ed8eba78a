//! The hot folder: what lies in it, and what the daemon says of it.

use super::*;

/// Runs a watched folder until `done` holds, then stops it.
async fn watch_until(scene: &Scene, done: impl Fn() -> bool) -> Result<(Summary, End), Box<dyn Error>> {
    let stopped = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        scene.stop.send_replace(Some(Stop::Interrupt));
    };
    let (run, ()) = tokio::join!(scene.run(), stopped);
    run
}

fn watching(scene: &mut Scene, settle: Duration) -> std::path::PathBuf {
    let folder = scene.folder.path().join("in");
    scene.job.input = Input::Watch { folder: folder.clone(), poll: Duration::from_millis(5), settle, keep_days: 0 };
    folder
}

/// Puts something bad into (in, out) before a run.
type Obstacle = Box<dyn Fn(&Path, &Path) -> std::io::Result<()>>;

fn obstacles() -> Vec<(&'static str, Obstacle)> {
    use std::os::unix::{ffi::OsStrExt, fs::symlink};
    let folder_at = |path: std::path::PathBuf| fs::create_dir_all(path);
    let bad = |folder: &Path, name: &str| fs::write(folder.join(name), "no CSR at all");
    vec![
        ("a name too long for its refusal", Box::new(move |input, _| bad(input, &format!("{}.csr", "n".repeat(246))))),
        (
            "a folder in place of the refusal",
            Box::new(move |input, _| {
                folder_at(input.join("failed/bad.error.json/x"))?;
                bad(input, "bad.csr")
            }),
        ),
        (
            "a folder in place of the failed CSR",
            Box::new(move |input, _| {
                folder_at(input.join("failed/bad.csr/x"))?;
                bad(input, "bad.csr")
            }),
        ),
        (
            "a folder in place of a certificate",
            Box::new(move |input, out| {
                folder_at(out.join("dev-9.pem/x"))?;
                fs::write(input.join("dev-9.csr"), csr().map_err(std::io::Error::other)?)
            }),
        ),
        (
            "a pipe in place of a certificate",
            Box::new(|input, out| {
                fs::create_dir_all(out)?;
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    out.join("dev-9.pem"),
                    rustix::fs::FileType::Fifo,
                    0o600.into(),
                    0,
                )?;
                fs::write(input.join("dev-9.csr"), csr().map_err(std::io::Error::other)?)
            }),
        ),
        (
            "a pipe as a CSR",
            Box::new(|input, _| {
                let path = input.join("a.csr");
                Ok(rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0)?)
            }),
        ),
        (
            "a socket as a CSR",
            Box::new(|input, _| std::os::unix::net::UnixListener::bind(input.join("a.csr")).map(drop)),
        ),
        (
            "links to nowhere, to themselves and to a device",
            Box::new(|input, _| {
                symlink("nowhere", input.join("a.csr"))?;
                symlink("b.csr", input.join("b.csr"))?;
                symlink("/dev/zero", input.join("c.csr"))
            }),
        ),
        (
            "a name that is not UTF-8",
            Box::new(|input, _| fs::write(input.join(std::ffi::OsStr::from_bytes(b"\xff\xfe.csr")), "no CSR at all")),
        ),
        (
            "a file in place of failed/",
            Box::new(move |input, _| {
                fs::write(input.join("failed"), "")?;
                bad(input, "bad.csr")
            }),
        ),
        ("a file in place of done/", Box::new(|input, _| fs::write(input.join("done"), ""))),
    ]
}

/// Whatever lies in a hot folder or in the way of its output, the other devices get their certificates.
#[tokio::test]
async fn watched_folder_with_odd_entries_serves_the_others() -> TestResult {
    for (what, put) in obstacles() {
        let mut scene = Scene::new(0)?;
        let folder = watching(&mut scene, Duration::ZERO);
        scene.serve(|_, _| Act::Issue)?;
        let out = scene.out();
        put(&folder, &out)?;
        // Later by name than what is in the way.
        fs::write(folder.join("z.csr"), pem_csr()?)?;
        let served = tokio::time::timeout(Duration::from_secs(20), watch_until(&scene, || out.join("z.pem").exists()));
        let (summary, end) = served.await.map_err(|_| what)??;
        assert_eq!(end, End::Stopped(Stop::Interrupt), "{what}");
        assert!(summary.issued >= 1, "{what}: {summary}");
    }
    Ok(())
}

#[tokio::test]
async fn half_written_file_is_waited_for() -> TestResult {
    let mut scene = Scene::new(0)?;
    let folder = watching(&mut scene, Duration::from_secs(3600));
    scene.serve(|_, _| Act::Issue)?;
    let (pem, der) = (pem_csr()?, csr()?);
    fs::write(folder.join("a.csr"), &pem[..130])?;
    fs::write(folder.join("b.der"), &der[..50])?;
    fs::write(folder.join("c.csr"), pem_csr()?)?;
    let out = scene.out();
    let finish = async {
        while !out.join("c.pem").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        fs::write(folder.join("a.csr"), &pem)?;
        fs::write(folder.join("b.der"), &der)
    };
    let all = || ["a.csr", "b.der", "c.csr"].iter().all(|name| folder.join("done").join(name).exists());
    let (run, finished) = tokio::join!(watch_until(&scene, all), finish);
    finished?;
    assert_eq!((run?.0.issued, fs::read_dir(folder.join("failed"))?.count()), (3, 0));

    // What is not finished in time is refused, and told why.
    let mut scene = Scene::new(0)?;
    let folder = watching(&mut scene, Duration::from_millis(20));
    scene.serve(|_, _| Act::Issue)?;
    fs::write(folder.join("a.csr"), &pem[..130])?;
    let refusal = folder.join("failed/a.error.json");
    watch_until(&scene, || folder.join("failed/a.csr").exists()).await?;
    assert!(fs::read_to_string(refusal)?.contains("still being written"));
    Ok(())
}

#[tokio::test]
async fn refused_order_holds_its_files_until_it_is_usable() -> TestResult {
    for (code, reason) in [
        (Code::ResourceExhausted, "ORDER_EXHAUSTED"),
        (Code::FailedPrecondition, "ORDER_CLOSED"),
        (Code::NotFound, "ORDER_UNKNOWN"),
        (Code::PermissionDenied, "STATION_REFUSED"),
    ] {
        let mut scene = Scene::new(20)?;
        let folder = watching(&mut scene, Duration::ZERO);
        let usable = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (refuses, requests) = (usable.clone(), scene.requests.clone());
        scene.serve(move |_, _| match refuses.load(Ordering::SeqCst) {
            true => Act::Issue,
            false => Act::Refuse(with_reason(code, reason, None)),
        })?;
        let opened = async {
            while requests.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(fs::read_dir(folder.join("failed")).map_or(0, Iterator::count), 0, "{reason}");
            usable.store(true, Ordering::SeqCst);
        };
        let done = || fs::read_dir(folder.join("done")).map_or(0, Iterator::count) == 20;
        let (run, ()) = tokio::join!(watch_until(&scene, done), opened);
        let (summary, _) = run?;
        assert_eq!((summary.issued, summary.refused, summary.held), (20, 0, 0), "{reason}");
        // While it is refused one file at a time asks.
        assert!(scene.requests.load(Ordering::SeqCst) < 60);
    }
    Ok(())
}

/// Files of one device keep their refusals.
#[tokio::test]
async fn files_of_one_device_keep_their_refusals() -> TestResult {
    let mut scene = Scene::new(0)?;
    let folder = watching(&mut scene, Duration::ZERO);
    scene.serve(|number, _| match number {
        0 => Act::Issue,
        _ => Act::Refuse(with_reason(Code::AlreadyExists, "DEVICE_HAS_CERTIFICATE", None)),
    })?;
    for name in ["DD.csr", "DD.pem", "DD.req"] {
        fs::write(folder.join(name), pem_csr()?)?;
    }
    let failed = folder.join("failed");
    watch_until(&scene, || fs::read_dir(&failed).map_or(0, Iterator::count) == 4).await?;
    assert!(folder.join("done/DD.csr").exists());
    for name in ["DD.pem", "DD.req", "DD.error.json", "DD.req.error.json"] {
        assert!(failed.join(name).exists(), "{name}");
    }

    // Outside of a hot folder as well.
    let scene = Scene::new(0)?;
    for name in ["DD.csr", "DD.pem"] {
        fs::write(scene.folder.path().join("in").join(name), pem_csr()?)?;
    }
    scene.serve(|_, _| Act::Issue)?;
    let (summary, _) = scene.run().await?;
    assert_eq!((summary.issued, summary.refused, scene.written(".error.json")?), (1, 1, 1));
    Ok(())
}

/// A hot folder's names must be possible on Windows too, wherever it is: what cannot be there is that device's refusal, and a
/// device that was refused keeps nobody from the name that it should have had.
#[tokio::test]
async fn hot_folder_refuses_names_that_windows_cannot_hold() -> TestResult {
    let mut scene = Scene::new(0)?;
    let folder = watching(&mut scene, Duration::from_millis(20));
    scene.serve(|_, request| match request.device_id.as_str() {
        "typo-1" => Act::Refuse(with_reason(Code::PermissionDenied, "DEVICE_NOT_ON_ORDER", None)),
        _ => Act::Issue,
    })?;
    let (out, failed) = (scene.out(), folder.join("failed"));
    fs::create_dir(&out)?;
    fs::write(out.join("OLD.pem"), "of an earlier run")?;
    for name in ["DD", "CON", "lpt9.x", "aa:bb", "old", "typo-1"] {
        fs::write(folder.join(format!("{name}.csr")), csr()?)?;
    }
    // Nothing was written into it, and nothing will be.
    fs::write(folder.join("empty.csr"), "")?;
    let later = async {
        while !(folder.join("done/DD.csr").exists() && failed.join("typo-1.csr").exists()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        fs::write(folder.join("dd.csr"), csr()?)?;
        fs::write(folder.join("TYPO-1.csr"), csr()?)?;
        TestResult::Ok(())
    };
    let refused = ["CON", "lpt9.x", "aa:bb", "old", "dd", "typo-1", "empty"];
    let done =
        || out.join("TYPO-1.pem").exists() && refused.iter().all(|name| failed.join(format!("{name}.csr")).exists());
    let (run, put) = tokio::join!(watch_until(&scene, done), later);
    put?;
    let (summary, end) = run?;
    assert_eq!((end, summary.issued, summary.refused), (End::Stopped(Stop::Interrupt), 2, 7));
    let counts: Vec<_> =
        summary.refused_by_reason.iter().map(|(reason, group)| (reason.as_str(), group.count)).collect();
    assert_eq!(counts, [("CSR_MALFORMED", 1), ("DEVICE_NOT_ON_ORDER", 1), ("NAME_REFUSED", 5)]);
    for (name, word) in [("dd", "upper and lower case"), ("aa:bb", "no file name on Windows"), ("empty", "empty")] {
        let refusal = fs::read_to_string(failed.join(format!("{name}.error.json")))?;
        assert!(refusal.contains(word), "{name}: {refusal}");
    }
    Ok(())
}

/// Without an order, under a profile that requires one, every CSR would be refused: none is touched.
#[tokio::test]
async fn hot_folder_without_a_required_order_touches_nothing() -> TestResult {
    let mut scene = Scene::new(3)?;
    let folder = watching(&mut scene, Duration::ZERO);
    scene.job.order.clear();
    scene.serve(|_, _| Act::Issue)?;
    let (summary, end) = tokio::time::timeout(Duration::from_secs(20), scene.run()).await??;
    assert!(matches!(&end, End::Failed(message) if message.contains("requires an order")), "{end:?}");
    assert_eq!(
        (
            summary.refused,
            fs::read_dir(&folder)?.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_file())).count()
        ),
        (0, 3)
    );
    Ok(())
}
