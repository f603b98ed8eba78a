//! `done/` and `failed/` of a hot folder by day: what came before today lies in a folder of its day, and goes when that is old.
//! Certificates are never touched: they are in a folder of their own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::{ToSpan, ZonedDateTime, civil::Date};

/// The endings of what a hot folder moves there.
const ENDINGS: [&str; 6] = [".csr", ".pem", ".der", ".p10", ".req", ".error.json"];

/// The folders that CSRs move to.
pub(crate) struct Archive {
    folders: Vec<PathBuf>,
    /// After how many days a day's folder is removed; 0: never.
    keep_days: u16,
    /// The day of what lies in the folders themselves.
    day: Option<Date>,
}

impl Archive {
    /// Of this hot folder. One in which certificates are written is left alone.
    pub(crate) fn new(watched: &Path, certificates: Option<&Path>, keep_days: u16) -> Archive {
        let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let certificates = certificates.map(whole);
        let holds_none = |folder: &PathBuf| !certificates.as_ref().is_some_and(|out| out.starts_with(whole(folder)));
        let folders = ["done", "failed"].map(|name| watched.join(name)).into_iter().filter(holds_none).collect();
        Archive { folders, keep_days, day: None }
    }

    /// Puts away what came before this day, and removes what is old. It does its work once a day; gives what is in the way.
    pub(crate) fn turn(&mut self, today: Date) -> Vec<String> {
        if self.day == Some(today) {
            return Vec::new();
        }
        let before = self.day.replace(today);
        let mut faults = Vec::new();
        for folder in &self.folders {
            let done = put_away(folder, before, today).and_then(|()| self.remove_old(folder, today));
            // A folder that is not there has nothing to put away.
            if let Err(error) = done.filter_missing() {
                faults.push(format!("cannot put away what is in {}: {error}", folder.display()));
            }
        }
        faults
    }

    fn remove_old(&self, folder: &Path, today: Date) -> io::Result<()> {
        let Some(oldest) = today.checked_sub(i64::from(self.keep_days).days()).ok().filter(|_| self.keep_days > 0)
        else {
            return Ok(());
        };
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let is_old = entry.file_name().to_str().and_then(day_named).is_some_and(|day| day < oldest);
            if is_old && entry.file_type()?.is_dir() {
                remove_day(&entry.path())?;
            }
        }
        Ok(())
    }
}

trait FilterMissing {
    fn filter_missing(self) -> io::Result<()>;
}

impl FilterMissing for io::Result<()> {
    fn filter_missing(self) -> io::Result<()> {
        self.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
    }
}

/// Moves the files of a folder into that of their day: the day before this one, or if that is not known, when something was
/// moved there last.
fn put_away(folder: &Path, before: Option<Date>, today: Date) -> io::Result<()> {
    let last_change = || -> io::Result<Date> {
        let time = fs::metadata(folder)?.modified()?;
        Ok(ZonedDateTime::try_from(time).map_err(io::Error::other)?.date())
    };
    let day = before.map_or_else(last_change, Ok)?;
    if day >= today {
        return Ok(());
    }
    let place = folder.join(day.to_string());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() || !entry.file_name().to_str().is_some_and(is_ours) {
            continue;
        }
        fs::create_dir_all(&place)?;
        rename(&entry.path(), &place.join(entry.file_name()))?;
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a file that is in its old place after a power failure is put away later"
)]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).filter_missing()
}

/// Removes the CSRs and refusals of a day, and its folder if there is nothing else in it.
fn remove_day(folder: &Path) -> io::Result<()> {
    let mut others = false;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() || !entry.file_name().to_str().is_some_and(is_ours) {
            others = true;
        } else {
            fs::remove_file(entry.path()).filter_missing()?;
        }
    }
    if others { Ok(()) } else { fs::remove_dir(folder).filter_missing() }
}

fn is_ours(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !name.starts_with('.') && ENDINGS.iter().any(|ending| name.ends_with(ending))
}

fn day_named(name: &str) -> Option<Date> {
    (name.len() == "2026-01-31".len()).then(|| name.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]

    use super::*;
    use std::{collections::BTreeSet, error::Error, time::SystemTime};

    fn files(folder: &Path) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            match entry.path().is_dir() {
                true => found.extend(files(&entry.path()).into_iter().map(|inner| format!("{name}/{inner}"))),
                false => found.extend([name]),
            }
        }
        found
    }

    /// Each day's files lie in its folder; old ones go, and nothing else does.
    #[test]
    fn hot_folder_keeps_its_days_apart_and_only_so_long() -> Result<(), Box<dyn Error>> {
        let hot = tempfile::tempdir()?;
        let today = ZonedDateTime::now().date();
        let day = |back: i64| today.checked_sub(back.days());
        for (folder, name) in
            [("done", "a.csr"), ("failed", "b.PEM"), ("failed", "b.error.json"), ("done", "notes.txt")]
        {
            fs::create_dir_all(hot.path().join(folder))?;
            fs::write(hot.path().join(folder).join(name), "")?;
        }
        for back in [31, 30] {
            let folder = hot.path().join("failed").join(day(back)?.to_string());
            fs::create_dir_all(&folder)?;
            for file in ["x.csr", "x.error.json"] {
                fs::write(folder.join(file), "")?;
            }
        }
        fs::create_dir_all(hot.path().join("done/2001-01-01"))?;
        fs::write(hot.path().join("done/2001-01-01/report.xlsx"), "")?;
        let earlier = SystemTime::now() - std::time::Duration::from_secs(3 * 86_400);
        for folder in ["done", "failed"] {
            fs::File::open(hot.path().join(folder))?.set_modified(earlier)?;
        }
        let of = ZonedDateTime::try_from(earlier)?.date();

        // Nothing was put away yet since the program began: it is of the day of the last change.
        let mut archive = Archive::new(hot.path(), Some(&hot.path().join("certs")), 30);
        assert!(archive.turn(today).is_empty());
        let failed = [
            format!("{of}/b.PEM"),
            format!("{of}/b.error.json"),
            format!("{}/x.csr", day(30)?),
            format!("{}/x.error.json", day(30)?),
        ];
        assert_eq!(files(&hot.path().join("failed")), failed.into_iter().collect());
        let done = ["2001-01-01/report.xlsx".to_owned(), format!("{of}/a.csr"), "notes.txt".to_owned()];
        assert_eq!(files(&hot.path().join("done")), done.into_iter().collect());

        // What comes today stays until tomorrow.
        fs::write(hot.path().join("done/c.csr"), "")?;
        assert!(archive.turn(today).is_empty() && hot.path().join("done/c.csr").exists());
        let tomorrow = today.tomorrow()?;
        assert!(archive.turn(tomorrow).is_empty());
        assert!(hot.path().join(format!("done/{today}/c.csr")).exists());
        Ok(())
    }

    /// A folder that has certificates in it is left alone, and so is everything without a limit.
    #[test]
    fn folder_with_certificates_is_left_alone() -> Result<(), Box<dyn Error>> {
        let hot = tempfile::tempdir()?;
        let old = hot.path().join("done/2001-01-01");
        fs::create_dir_all(&old)?;
        fs::write(old.join("a.pem"), "")?;
        let today = ZonedDateTime::now().date();
        assert!(Archive::new(hot.path(), Some(&old), 1).turn(today).is_empty() && old.join("a.pem").exists());
        assert!(Archive::new(hot.path(), None, 0).turn(today).is_empty() && old.join("a.pem").exists());
        assert!(Archive::new(hot.path(), None, 1).turn(today).is_empty() && !old.exists());
        Ok(())
    }
}
