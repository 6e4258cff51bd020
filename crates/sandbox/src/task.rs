//! Tasks of a build VM: what its host asks for, and the process in the guest that does it.
//!
//! ```text
//!  input:   head (u32 length, JSON of a Task) ▸ an archive, for Unpack
//!  result:  head (u32 length, JSON of an Answer) ▸ an archive, for a Step that succeeded and for Pack
//! ```
//!
//! Integers are little-endian. The archive of a step is its upper directory as it is, overlay marks included: what of it
//! is a change is for the host to find, which knows what the step was given. The host reads what comes from a guest with
//! limits; the guest trusts its host.
//!
//! A guest has its files at [`BASE`] (the disk that most chains begin with, read-only) and below [`SCRATCH`].

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firebuild_rootfs::tar::{Output, ReadOptions, Whiteouts, WriteOptions, read_layer, write_tree};
use firebuild_rootfs::tree::{Content, Contents, Kind, Opened, Source, Tree};
use firebuild_rootfs::unpack::{UnpackOptions, unpack_layer};
use firebuild_rootfs::walk::{DirContents, WalkOptions, open_root, walk};
use firebuild_sys::{process, rlimit, signal};
use rustix::fs::{CWD, Mode, OFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::job::{Failure, FailureKind, MountJobKind, Scope, Status, StepJob};
use crate::{Surroundings, perform};

/// Where a guest shows the files of its image disk.
pub const BASE: &str = "/base";
/// Where a guest keeps everything else.
pub const SCRATCH: &str = "/scratch";

/// The longest head; a step with its secrets and scripts is the longest one.
pub const MAX_HEAD: usize = 64 << 20;
/// How many sockets an answer names at most.
const MAX_SOCKETS: usize = 64;
/// The soft limit of open files of a step: what a login has.
const OPEN_FILES: u64 = 1024;
/// The archive that is being unpacked stands for the one blob that there is.
const BLOB: [u8; 32] = [0; 32];

/// What a guest is asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Makes a directory of the archive that follows.
    Unpack {
        /// The directory; it is not there yet, its parent is made.
        directory: PathBuf,
        /// Whether names that begin with `.wh.` are removals: the archive is a layer.
        is_layer: bool,
    },
    /// Runs a step.
    Step(Box<StepJob>),
    /// Gives what a directory holds as an archive.
    Pack {
        /// The directory.
        directory: PathBuf,
    },
}

/// What came of a [`Task`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It could not be done.
    Failed(Failure),
    /// The directory is there.
    Unpacked,
    /// The step's program has ended; when it succeeded, an archive of its upper directory follows.
    Ended {
        /// How.
        status: Status,
        /// Sockets that it left, which no archive holds: the first of them.
        sockets: Vec<String>,
    },
    /// An archive follows.
    Packed,
}

/// Writes a head.
///
/// # Errors
/// When it is too long or cannot be written.
pub fn write_head(to: &mut impl Write, head: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(head).map_err(io::Error::other)?;
    let length = u32::try_from(json.len())
        .ok()
        .filter(|_| json.len() <= MAX_HEAD)
        .ok_or_else(|| io::Error::other(format!("a head of {} bytes is too long", json.len())))?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&json)
}

/// Reads a head of at most `limit` bytes.
///
/// # Errors
/// When it cannot be read, is too long, or is none.
pub fn read_head<T: DeserializeOwned>(from: &mut impl Read, limit: usize) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > limit {
        let text = format!("a head of {length} bytes is too long");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut json = vec![0; length];
    from.read_exact(&mut json)?;
    serde_json::from_slice(&json).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Does the task that the calling process was started for: its standard input is the task's, its standard output and
/// error are those of a step's program, `result` takes the answer.
///
/// # Errors
/// When the task cannot be read or the answer not be written. A task that fails is an answer.
pub fn work(result: OwnedFd) -> io::Result<()> {
    let input = process::take_stdin()?;
    signal::unblock_all()?;
    process::close_on_exec_from(3)?;
    // Every mode that is set is meant as it is; a step gets a mask of its own.
    rustix::process::umask(Mode::empty());
    let mut input = File::from(input);
    let mut result = BufWriter::with_capacity(256 << 10, File::from(result));
    let task = read_head(&mut input, MAX_HEAD)?;
    if let Err(failure) = act(task, input, &mut result)? {
        write_head(&mut result, &Answer::Failed(failure))?;
    }
    result.flush()
}

/// The outer error is that of the result, the inner one the task's.
fn act(task: Task, input: File, result: &mut impl Write) -> io::Result<Result<(), Failure>> {
    match task {
        Task::Unpack {
            directory,
            is_layer,
        } => match unpack(input, &directory, is_layer) {
            Ok(()) => write_head(result, &Answer::Unpacked).map(Ok),
            Err(failure) => Ok(Err(failure)),
        },
        Task::Step(job) => {
            drop(input);
            step(&job, result)
        }
        Task::Pack { directory } => {
            let opened = open_root(&directory).map_err(Failure::because(
                FailureKind::Layer,
                format!("cannot open {}", directory.display()),
            ));
            match opened.and_then(|root| Ok((read(&root)?, root))) {
                Ok((tree, root)) => {
                    write_head(result, &Answer::Packed)?;
                    pack(&tree, root, result).map(Ok)
                }
                Err(failure) => Ok(Err(failure)),
            }
        }
    }
}

fn step(job: &StepJob, result: &mut impl Write) -> io::Result<Result<(), Failure>> {
    // Ours is for our own work; the step gets the usual one.
    rlimit::raise_open_files()?;
    if let Err(failure) = make_places(job) {
        return Ok(Err(failure));
    }
    let surroundings = Surroundings {
        scope: Scope::Host,
        open_files: Some(OPEN_FILES),
    };
    let (exit, upper) = match perform(job, surroundings, None) {
        Ok(ended) => ended,
        Err(failure) => return Ok(Err(failure)),
    };
    let status = Status::from(exit);
    let Some(upper) = upper else {
        let sockets = Vec::new();
        return write_head(result, &Answer::Ended { status, sockets }).map(Ok);
    };
    let tree = match read(&upper) {
        Ok(tree) => tree,
        Err(failure) => return Ok(Err(failure)),
    };
    let sockets = tree
        .walk()
        .filter(|(_, id)| tree[*id].kind == Kind::Socket)
        .map(|(path, _)| String::from_utf8_lossy(&path).into_owned())
        .take(MAX_SOCKETS)
        .collect();
    write_head(result, &Answer::Ended { status, sockets })?;
    pack(&tree, upper, result).map(Ok)
}

/// Makes the directories that a host would have at hand.
fn make_places(job: &StepJob) -> Result<(), Failure> {
    let caches = job.mounts.iter().filter_map(|mount| match &mount.kind {
        MountJobKind::Directory { path, .. } => path.parent(),
        _ => None,
    });
    for path in caches.chain([job.root.directory.as_path()]) {
        fs_err::create_dir_all(path).map_err(Failure::because(
            FailureKind::Host,
            "cannot make the directories of the step",
        ))?;
    }
    Ok(())
}

fn read(root: &OwnedFd) -> Result<Tree, Failure> {
    walk(root.as_fd(), WalkOptions::default()).map_err(Failure::because(
        FailureKind::Layer,
        "cannot read what the step has changed",
    ))
}

/// A cut archive tells the host that this failed.
fn pack(tree: &Tree, root: OwnedFd, result: &mut impl Write) -> io::Result<()> {
    let contents = DirContents::new(root);
    write_tree(
        tree,
        &contents,
        Output::Stream(result),
        &WriteOptions::default(),
    )
    .map(drop)
    .map_err(io::Error::other)
}

fn unpack(mut input: File, directory: &Path, is_layer: bool) -> Result<(), Failure> {
    fn base<E: std::error::Error + 'static>(text: &'static str) -> impl FnOnce(E) -> Failure {
        Failure::because(FailureKind::Base, text)
    }
    let parent = directory.parent().unwrap_or(Path::new(SCRATCH));
    fs_err::create_dir_all(parent).map_err(base("cannot make a directory for layers"))?;
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let spool = rustix::fs::openat(CWD, parent, flags, Mode::RUSR)
        .map_err(base("cannot make a file for a layer"))?;
    let mut spool = File::from(spool);
    io::copy(&mut input, &mut spool).map_err(base("cannot receive a layer"))?;
    io::Seek::rewind(&mut spool).map_err(base("cannot read a layer"))?;
    let options = ReadOptions {
        whiteouts: if is_layer {
            Whiteouts::Apply
        } else {
            Whiteouts::Keep
        },
        ..ReadOptions::default()
    };
    let reader = spool.try_clone().map_err(base("cannot read a layer"))?;
    let layer = read_layer(reader, BLOB, &options).map_err(base("cannot read a layer"))?;
    rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755))
        .map_err(base("cannot make the directory of a layer"))?;
    let root = open_root(directory).map_err(base("cannot open the directory of a layer"))?;
    let contents = Spooled(Arc::new(spool));
    unpack_layer(&layer, &contents, root.as_fd(), &UnpackOptions::default())
        .map(drop)
        .map_err(base("cannot unpack a layer"))
}

/// The contents of an archive that lies in one file, read under the name of the blob `[0; 32]`.
#[derive(Debug)]
pub struct Spooled(pub Arc<File>);

impl Contents for Spooled {
    fn open(&self, content: &Content) -> io::Result<Opened> {
        if let Source::Bytes(bytes) = &content.source {
            return Ok(Opened::Bytes(Arc::clone(bytes)));
        }
        content
            .opened_in(&self.0)
            .ok_or_else(|| io::Error::other("the content is not in the archive"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Task, act, read_head, write_head};
    use crate::job::Status;
    use std::fs::File;
    use std::io::{Seek, Write};

    fn input(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn heads_are_bounded() {
        let mut bytes = Vec::new();
        let status = Status::Code(3);
        let sockets = vec!["run/x".to_owned()];
        write_head(&mut bytes, &Answer::Ended { status, sockets }).unwrap();
        let back: Answer = read_head(&mut &bytes[..], 1 << 10).unwrap();
        assert!(matches!(
            back,
            Answer::Ended {
                status: Status::Code(3),
                ..
            }
        ));
        assert!(read_head::<Answer>(&mut &bytes[..], 4).is_err());
        assert!(read_head::<Answer>(&mut &bytes[..9], 1 << 10).is_err());
        assert!(read_head::<Answer>(&mut &[255; 64][..], usize::MAX >> 1).is_err());
    }

    #[test]
    fn a_directory_goes_out_and_comes_back() {
        let top = tempfile::tempdir().unwrap();
        let (one, two) = (top.path().join("one"), top.path().join("new/two"));
        fs_err::create_dir_all(one.join("sub")).unwrap();
        fs_err::write(one.join("sub/.wh.name"), "kept").unwrap();
        let mut packed = Vec::new();
        let task = Task::Pack { directory: one };
        act(task, input(b""), &mut packed).unwrap().unwrap();
        let mut archive = &packed[..];
        assert!(matches!(
            read_head(&mut archive, 1 << 10).unwrap(),
            Answer::Packed
        ));
        let task = Task::Unpack {
            directory: two.clone(),
            is_layer: false,
        };
        // Only root may give files away; anybody may give them to himself.
        act(task, input(archive), &mut Vec::new()).unwrap().unwrap();
        assert_eq!(
            fs_err::read_to_string(two.join("sub/.wh.name")).unwrap(),
            "kept"
        );
    }

    #[test]
    fn a_damaged_archive_is_a_failure() {
        let top = tempfile::tempdir().unwrap();
        let task = Task::Unpack {
            directory: top.path().join("x"),
            is_layer: true,
        };
        let failure = act(task, input(&[7; 2048]), &mut Vec::new())
            .unwrap()
            .unwrap_err();
        assert_eq!(failure.messages[0], "cannot read a layer");
    }
}
