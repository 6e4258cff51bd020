//! What is built: contexts and Dockerfiles, and the same commands without a builder.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{Build, shell};
use crate::Fallible;

/// What has happened since the build before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The build cache is empty.
    Cold,
    /// Nothing.
    Nothing,
    /// One file or line of the context has another content.
    One,
}

impl Change {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Nothing => "no change",
            Self::One => "one file changed",
        }
    }
}

/// Something to build.
pub(super) struct Scene {
    pub(super) name: &'static str,
    pub(super) title: String,
    pub(super) directory: PathBuf,
    /// Makes the image that [`Scene::build`] begins with.
    pub(super) base: Build,
    pub(super) build: Build,
    dockerfile: String,
    /// Makes the files of the base's context.
    make_base: fn(&Path) -> Fallible<()>,
    make_context: fn(&Path) -> Fallible<()>,
    /// The file that [`Change::One`] changes, in the context.
    changes: Option<&'static str>,
    /// The commands of a cold build, and those after a change.
    bare: (String, String),
    count: AtomicU64,
}

/// Files of the context of the first scene.
const FILES: usize = 2000;
const STEPS: usize = 200;

/// All scenes, each with a directory of its own in `work`.
pub(super) fn all(work: &Path) -> Fallible<Vec<Scene>> {
    let busy = busy()?;
    let scene = |name: &'static str, title: String, dockerfile: String, bare| {
        let directory = work.join(name);
        let build = |kind: &str, tag| Build {
            dockerfile: directory.join(format!("Dockerfile.{kind}")),
            context: directory.join(kind),
            tag,
        };
        Scene {
            name,
            title,
            base: build("base", "bench/base:1"),
            build: build("context", "bench/result:1"),
            directory,
            dockerfile,
            make_base: debian,
            make_context: |_| Ok(()),
            changes: None,
            bare,
            count: AtomicU64::new(0),
        }
    };
    let step = |name: &str| format!("{busy}; echo {name} >{name}");
    let parallel = format!(
        "FROM bench/base:1 AS one\nWORKDIR /work\nRUN {}\nCOPY src /work/src\nRUN {}\n\
         FROM bench/base:1 AS two\nWORKDIR /work\nRUN {}\nCOPY extra /work/extra\nRUN {}\n\
         FROM bench/base:1\nCOPY --from=one /work /app/one\nCOPY --from=two /work /app/two\n",
        step("one-1"),
        step("one-2"),
        step("two-1"),
        step("two-2"),
    );
    let (once, twice) = (busy.clone(), format!("{busy}; {busy}"));
    let small: String = (0..STEPS)
        .map(|number| format!("RUN echo {number} >step-{number}\n"))
        .collect();
    let bare_small: String = (0..STEPS)
        .map(|number| format!("sh -c 'echo {number} >/dev/null'\n"))
        .collect();
    Ok(vec![
        Scene {
            make_context: many,
            changes: Some("src/7/77"),
            ..scene(
                "parallel",
                format!("two parallel stages of two steps of 0.3 s, {FILES} files copied"),
                parallel,
                (format!("({twice}) & ({twice}); wait"), once),
            )
        },
        Scene {
            make_base: large,
            make_context: |context| Ok(fs_err::write(context.join("app.conf"), "level = 0\n")?),
            changes: Some("app.conf"),
            ..scene(
                "large",
                "a base of 500 MB, one line copied and one step".to_owned(),
                "FROM bench/base:1\nCOPY app.conf /etc/app.conf\nRUN cp /etc/app.conf /etc/app.active\n".to_owned(),
                ("cat /etc/hostname".to_owned(), "cat /etc/hostname".to_owned()),
            )
        },
        scene(
            "small",
            format!("{STEPS} small steps"),
            format!("FROM bench/base:1\n{small}"),
            (bare_small, String::new()),
        ),
    ])
}

impl Scene {
    /// What is measured of it.
    pub(super) fn changes(&self) -> impl Iterator<Item = Change> {
        let one = self.changes.map(|_| Change::One);
        [Change::Cold, Change::Nothing].into_iter().chain(one)
    }

    /// Makes all files.
    pub(super) fn write(&self) -> Fallible<()> {
        fs_err::create_dir_all(&self.base.context)?;
        fs_err::create_dir_all(&self.build.context)?;
        (self.make_base)(&self.base.context)?;
        (self.make_context)(&self.build.context)?;
        // The step has every builder unpack the image.
        fs_err::write(
            &self.base.dockerfile,
            "FROM scratch\nADD base.tar /\nRUN echo base >/.base\n",
        )?;
        Ok(fs_err::write(&self.build.dockerfile, &self.dockerfile)?)
    }

    /// Makes the change.
    pub(super) fn touch(&self, change: Change) -> Fallible<()> {
        if let (Change::One, Some(file)) = (change, self.changes) {
            let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
            let path = self.build.context.join(file);
            fs_err::write(path, format!("level = {count}\n"))?;
        }
        Ok(())
    }

    /// The commands that a builder has to run, run by nobody.
    pub(super) fn bare(&self, change: Change) -> Command {
        shell(match change {
            Change::Cold => &self.bare.0,
            Change::One => &self.bare.1,
            Change::Nothing => ":",
        })
    }
}

/// A shell command that computes for about 0.3 s on this machine.
fn busy() -> Fallible<String> {
    let count = |turns: u64| format!("i=0; while [ $i -lt {turns} ]; do i=$((i+1)); done");
    let turns = 200_000;
    let mut times = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        super::succeed(shell(&count(turns)))?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let turns = turns as f64 * 0.3 / times[1].as_secs_f64().max(0.001);
    Ok(count(turns as u64))
}

/// A small Debian system as a tar, or where it cannot be had a static busybox.
fn debian(context: &Path) -> Fallible<()> {
    let (tar, log) = (context.join("base.tar"), Stdio::null);
    let made = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", "bookworm"])
        .arg(&tar)
        .stdout(log())
        .stderr(log())
        .status();
    if made.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    eprintln!("no Debian tree is to be had: the base is a static busybox");
    busybox(context, &[])
}

fn busybox(context: &Path, more: &[&str]) -> Fallible<()> {
    let tree = context.join("tree");
    fs_err::create_dir_all(tree.join("bin"))?;
    fs_err::create_dir_all(tree.join("etc"))?;
    let program = super::super::busybox()?;
    for name in ["busybox", "sh", "cat", "cp"] {
        fs_err::copy(&program, tree.join("bin").join(name))?;
    }
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&tree).arg("-cf");
    tar.arg(context.join("base.tar")).args(["bin", "etc"]);
    super::succeed({
        tar.args(more);
        tar
    })?;
    Ok(fs_err::remove_dir_all(&tree)?)
}

/// 500 files of 1 MB that no compression makes smaller.
fn large(context: &Path) -> Fallible<()> {
    let data = context.join("tree/data");
    fs_err::create_dir_all(&data)?;
    let mut noise = super::super::Noise::default();
    let mut block = vec![0; 1_000_000];
    for number in 0..500 {
        noise.fill(&mut block);
        fs_err::write(data.join(format!("file-{number}")), &block)?;
    }
    busybox(context, &["data"])
}

fn many(context: &Path) -> Fallible<()> {
    for number in 0..FILES {
        let directory = context.join(format!("src/{}", number / 100));
        fs_err::create_dir_all(&directory)?;
        let line = format!("file {number} of the context\n");
        fs_err::write(
            directory.join((number % 100).to_string()),
            line.repeat(1 + number % 80),
        )?;
    }
    let extra = context.join("extra");
    fs_err::create_dir_all(&extra)?;
    let mut text = String::new();
    writeln!(text, "another file")?;
    Ok(fs_err::write(extra.join("file"), text)?)
}
