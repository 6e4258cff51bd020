//! From what a step left to a layer in the store.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use firebuild_rootfs::layer::{Change, Layer};
use firebuild_rootfs::overlay::{copy_layer, upper_layer};
use firebuild_rootfs::tree::{Content, Contents, Kind, Opened, Source, Tree};
use firebuild_rootfs::unpack::Skipped;
use firebuild_rootfs::walk::{DirContents, WalkOptions, open_root, walk};

use super::Sandbox;
use super::process::Running;
use crate::cancel::Cancel;
use crate::content::{StoreContents, store_layer};
use crate::exec::{ExecError, ExecErrorKind, NewLayer};
use crate::stoppable::StoppableContents;
use firebuild_sandbox::codec;
use firebuild_sandbox::job::{Ask, Reply, Scope};
use firebuild_sandbox::wire::{self, MAX_FDS};
use firebuild_store::Store;

fn failed(context: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ExecError {
    ExecError::caused(ExecErrorKind::Layer, context, source)
}

/// Reads what the step left, and stores the difference to what it was given as a layer.
pub(super) fn layer(
    sandbox: &Sandbox<'_>,
    running: &mut Running,
    given: &Tree,
    skipped: &Skipped,
    upper: &Path,
    copy: bool,
    cancel: &Cancel,
) -> Result<NewLayer, ExecError> {
    let scope = sandbox.namespace()?.scope;
    let (left, root) = if scope == Scope::Host {
        let root = open_root(upper)
            .map_err(|error| failed("cannot open what the step has changed", error))?;
        let left = walk(root.as_fd(), WalkOptions::default())
            .map_err(|error| failed("cannot read what the step has changed", error))?;
        (left, Some(root))
    } else {
        (receive(running)?, None)
    };
    let layer = if copy {
        copy_layer(&left, given, skipped)
    } else {
        upper_layer(&left, given, skipped)
    };
    note_sockets(sandbox, &layer);

    let store = sandbox.store;
    let stored = match root {
        Some(root) => {
            let files = DirContents::new(root);
            let inner = StoreContents::with_paths(store, &files);
            store_changes(store, &layer, &StoppableContents { inner, cancel })?
        }
        None => {
            let handed = Handed::new(running, &layer);
            let inner = StoreContents::with_paths(store, &handed);
            store_changes(store, &layer, &StoppableContents { inner, cancel })?
        }
    };
    if scope != Scope::Host {
        running.ask(&Ask::Finish)?;
    }
    Ok(stored)
}

/// Stores what a step has changed as a layer.
///
/// # Errors
/// When content cannot be read or the disk refuses.
pub fn store_changes(
    store: &Store,
    layer: &Layer,
    contents: &dyn Contents,
) -> Result<NewLayer, ExecError> {
    let stored = store_layer(store, layer, contents).map_err(|error| {
        let full = error.is_full();
        let kind = if full {
            ExecErrorKind::NoSpace
        } else {
            ExecErrorKind::Layer
        };
        ExecError::caused(kind, "cannot store what the step has changed", error)
    })?;
    let size = store
        .blob_size(&stored.diff_id)
        .map_err(|error| failed("cannot find the step's layer", error))?;
    Ok(NewLayer {
        diff_id: stored.diff_id,
        size,
        layer: stored.layer,
    })
}

/// What the inner half found in the upper directory.
fn receive(running: &mut Running) -> Result<Tree, ExecError> {
    let mut entries = Layer::default();
    loop {
        let frame = running.receive()?;
        if frame.kind == wire::Kind::Message {
            return match frame.message::<Reply>() {
                Ok(Reply::Failed(failure)) => Err(super::process::error(failure, None)),
                _ => Err(ExecError::new(
                    ExecErrorKind::Host,
                    "the sandbox did not tell what the step has changed",
                )),
            };
        }
        if frame.body.is_empty() {
            break;
        }
        entries.entries.extend(
            codec::decode(&frame.body)
                .map_err(|error| failed("cannot understand the sandbox", error))?,
        );
    }
    if !matches!(running.reply()?.0, Reply::Captured) {
        return Err(ExecError::new(
            ExecErrorKind::Host,
            "the sandbox did not finish its account of the step",
        ));
    }
    let mut left = Tree::new();
    left.apply(&entries)
        .map_err(|error| failed("cannot understand what the step has changed", error))?;
    Ok(left)
}

/// An archive holds no sockets.
fn note_sockets(sandbox: &Sandbox<'_>, layer: &Layer) {
    for entry in &layer.entries {
        if let Change::Node(node) = &entry.change
            && node.kind == Kind::Socket
        {
            sandbox.notice(format!(
                "socket not kept in the layer: /{}",
                String::from_utf8_lossy(&entry.path)
            ));
        }
    }
}

/// Files of the upper directory that the inner half opens, because their ids are not ours: some at a time, in the order
/// in which the layer is written.
struct Handed<'a> {
    state: Mutex<State<'a>>,
}

struct State<'a> {
    running: &'a mut Running,
    to_come: VecDeque<Vec<u8>>,
    here: HashMap<Vec<u8>, OwnedFd>,
}

impl<'a> Handed<'a> {
    fn new(running: &'a mut Running, layer: &Layer) -> Self {
        let mut to_come: Vec<&[u8]> = Vec::new();
        for entry in &layer.entries {
            if let Change::Node(node) = &entry.change
                && let Kind::File(Content {
                    source: Source::Path(path),
                    size: 1..,
                }) = &node.kind
            {
                to_come.push(path.as_os_str().as_bytes());
            }
        }
        let to_come = to_come.into_iter().map(<[u8]>::to_vec).collect();
        Self {
            state: Mutex::new(State {
                running,
                to_come,
                here: HashMap::new(),
            }),
        }
    }
}

impl Contents for Handed<'_> {
    fn open(&self, content: &Content) -> io::Result<Opened> {
        let Source::Path(path) = &content.source else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the content is not in the step's directory",
            ));
        };
        let path = path.as_os_str().as_bytes();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.here.contains_key(path) {
            state.fetch(path)?;
        }
        let fd = state
            .here
            .remove(path)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Opened::File {
            file: Arc::new(File::from(fd)),
            offset: 0,
        })
    }
}

impl State<'_> {
    /// Has a file opened, and those that will probably be wanted next.
    fn fetch(&mut self, path: &[u8]) -> io::Result<()> {
        while self
            .to_come
            .front()
            .is_some_and(|next| next.as_slice() != path)
        {
            self.to_come.pop_front();
        }
        self.to_come.pop_front();
        let mut wanted = vec![path.to_vec()];
        while wanted.len() + self.here.len() < MAX_FDS {
            match self.to_come.pop_front() {
                Some(next) => wanted.push(next),
                None => break,
            }
        }
        let ask = Ask::Open(wanted);
        self.running.ask(&ask).map_err(io::Error::other)?;
        let Ask::Open(wanted) = ask else {
            return Ok(());
        };
        match self.running.reply().map_err(io::Error::other)? {
            (Reply::Files, fds) if fds.len() == wanted.len() => {
                self.here.extend(wanted.into_iter().zip(fds));
                Ok(())
            }
            _ => Err(io::Error::other(
                "the sandbox did not open what was asked for",
            )),
        }
    }
}
