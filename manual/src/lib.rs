//! Man pages and shell completions of a program, out of its command line: a page for each command, as git has them. All
//! programs have the hidden command `manual` for it, so that whoever builds them can make both too.

#![expect(clippy::disallowed_methods, reason = "made anew by each build: half a file after a crash costs nothing")]

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Command, builder::StyledStr};
use clap_complete::{
    generate_to,
    shells::{Bash, Fish, Zsh},
};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};
use jiff::Timestamp;

/// Write man pages and completions for bash, zsh and fish into a folder such as /usr/local/share
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that gets man/man1, bash-completion/completions, zsh/site-functions and fish/vendor_completions.d
    #[arg(value_name = "FOLDER")]
    share: PathBuf,
}

/// What one program writes.
pub struct Manual<'a> {
    /// The command line.
    pub command: Command,
    /// Pages that another program writes.
    pub elsewhere: &'a [&'a str],
    /// A command that is a program of its own as well, with pages of the same names: here they are in the section `1birthmark`, so
    /// that both are found and no file is two packages'.
    pub also_a_program: Option<&'a str>,
    /// The pages that every page refers to at its end.
    pub see_also: &'a str,
}

impl Manual<'_> {
    /// Writes the pages, and the completions if the program's own page is among them.
    ///
    /// # Errors
    /// A folder or file cannot be written.
    pub fn write(self, args: &Args) -> io::Result<ExitCode> {
        let share = &args.share;
        let told = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot write manual pages into {}: {error}", share.display()))
        };
        self.write_below(share).map_err(told)
    }

    fn write_below(mut self, share: &Path) -> io::Result<ExitCode> {
        // Else each command would have one more, and a page for it.
        self.command = self.command.disable_help_subcommand(true);
        self.command.build();
        self.pages(&self.command, None, &folder(share, "man/man1")?)?;
        if !self.is_elsewhere(&self.command) {
            self.completions(share)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn is_elsewhere(&self, command: &Command) -> bool {
        self.elsewhere.contains(&name(command))
    }

    fn pages(&self, command: &Command, parent: Option<&str>, folder: &Path) -> io::Result<()> {
        if !self.is_elsewhere(command) {
            self.page(command, parent, folder)?;
        }
        let mut shown = command.get_subcommands().filter(|command| !command.is_hide_set());
        shown.try_for_each(|sub| self.pages(sub, Some(name(command)), folder))
    }

    fn page(&self, command: &Command, parent: Option<&str>, folder: &Path) -> io::Result<()> {
        check(command)?;
        let version = self.command.get_version().unwrap_or_default();
        let also = |program: &str| {
            name(command).strip_prefix(program).is_some_and(|end| end.is_empty() || end.starts_with('-'))
        };
        let section = if self.also_a_program.is_some_and(also) { "1birthmark" } else { "1" };
        let man = Man::new(command.clone()).section(section).date(date()).source(format!("birthmark {version}"));
        let man = man.manual("Birthmark");
        let mut page = Vec::new();
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        if command.get_arguments().any(|argument| !argument.is_hide_set()) {
            man.render_options_section(&mut page)?;
        }
        if command.get_subcommands().any(|command| !command.is_hide_set()) {
            man.render_subcommands_section(&mut page)?;
        }
        let mut end = Roff::default();
        if let Some(notes) = command.get_after_long_help().or_else(|| command.get_after_help()) {
            notes_section(&mut end, notes);
        }
        let parent = parent.map(|parent| format!("{parent}(1), ")).unwrap_or_default();
        end.control("SH", ["SEE ALSO"]).text([roman(format!("{parent}{}", self.see_also))]);
        end.to_writer(&mut page)?;
        fs::write(folder.join(man.get_filename()), page)
    }

    fn completions(&mut self, share: &Path) -> io::Result<()> {
        let program = self.command.get_name().to_owned();
        let bash = generate_to(Bash, &mut self.command, &program, folder(share, "bash-completion/completions")?)?;
        // The name by which bash-completion finds it.
        fs::rename(&bash, bash.with_file_name(&program))?;
        generate_to(Zsh, &mut self.command, &program, folder(share, "zsh/site-functions")?)?;
        generate_to(Fish, &mut self.command, &program, folder(share, "fish/vendor_completions.d")?)?;
        Ok(())
    }
}

/// Every command and argument must have a text: a page without it helps nobody.
fn check(command: &Command) -> io::Result<()> {
    let fault = |what: &str| Err(io::Error::other(format!("{what} of {} has no help text", name(command))));
    if command.get_about().is_none() {
        return fault("the command line");
    }
    let mut shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    match shown.find(|argument| argument.get_help().is_none()) {
        Some(argument) => fault(&format!("the argument {argument}")),
        None => Ok(()),
    }
}

/// Today, or the day that a build that is to be the same byte for byte says.
fn date() -> String {
    let told =
        env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| Timestamp::from_second(seconds.parse().ok()?).ok());
    told.unwrap_or_else(Timestamp::now).strftime("%Y-%m-%d").to_string()
}

/// `birthmark-order-create`.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn folder(share: &Path, below: &str) -> io::Result<PathBuf> {
    let folder = share.join(below);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// What stands below a command's options: indented lines stay as they are, others are filled.
fn notes_section(roff: &mut Roff, notes: &StyledStr) {
    roff.control("SH", ["NOTES"]);
    let mut as_it_is = false;
    for line in notes.to_string().lines() {
        let indented = line.starts_with(' ');
        if indented != as_it_is {
            roff.control(if indented { "nf" } else { "fi" }, []);
            as_it_is = indented;
        }
        if line.is_empty() {
            roff.control("PP", []);
        } else {
            roff.text([roman(line)]);
        }
    }
    if as_it_is {
        roff.control("fi", []);
    }
}
