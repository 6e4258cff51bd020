//! Writing an output where the user wants it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use firebuild_oci::ImageConfig;
use firebuild_oci::layout::LayoutWriter;
use firebuild_rootfs::tar;
use firebuild_rootfs::tree::{Content, Contents, Opened, Time};
use firebuild_rootfs::unpack::export_dir;
use firebuild_rootfs::walk::open_root;
use firebuild_store::Store;

use super::layout;
use super::{Dest, ExportError, ExportErrorKind, Output, OutputKind, disk};
use crate::cancel::Cancel;
use crate::chain::Chain;
use crate::content::StoreContents;

/// What every export needs to know about an image.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Its layers.
    pub chain: &'a Chain,
    /// Its configuration, complete.
    pub config: &'a ImageConfig,
    /// The name that goes into a layout, if it has one.
    pub name: Option<&'a str>,
    /// Layers of its base, which a rewrite of times leaves alone.
    pub base_layers: usize,
    /// Bytes that an ext4 image has at least.
    pub min_size: Option<u64>,
    /// The epoch for `rewrite-timestamp=true`.
    pub epoch: Option<i64>,
}

/// Writes one output. A raised `cancel` ends it with the next piece of data, and a file that was begun is removed.
///
/// # Errors
/// When content is missing, does not fit into the format, or the destination refuses.
pub fn export(
    store: &Store,
    image: &Image<'_>,
    output: &Output,
    cancel: &Cancel,
) -> Result<(), ExportError> {
    match output.kind {
        OutputKind::Ext4 => {
            let source = disk(store, image.chain, image.min_size)?;
            beside(&output.dest, |path| copy_sparse(&source, path, cancel))
        }
        OutputKind::Oci { tar, compression } => {
            let clamp = output.rewrite_timestamp.then_some(image.epoch).flatten();
            let failed = |error| {
                ExportError::caused(
                    ExportErrorKind::Dest,
                    "cannot write the image layout",
                    error,
                )
            };
            match (&output.dest, tar) {
                (Dest::Path(path), false) => {
                    let writer = LayoutWriter::directory(path).map_err(failed)?;
                    layout::write(store, image, compression, clamp, writer)
                }
                (Dest::Stdout, _) => {
                    let writer =
                        LayoutWriter::archive(Box::new(Stoppable::new(io::stdout(), cancel)))
                            .map_err(failed)?;
                    layout::write(store, image, compression, clamp, writer)
                }
                (dest, true) => beside(dest, |path| {
                    let file = File::create(path).map_err(|error| {
                        ExportError::io(format!("cannot write {}", path.display()), error)
                    })?;
                    let out = io::BufWriter::with_capacity(1 << 20, Stoppable::new(file, cancel));
                    let writer = LayoutWriter::archive(Box::new(out)).map_err(failed)?;
                    layout::write(store, image, compression, clamp, writer)
                }),
            }
        }
        OutputKind::Tar => {
            let tree = image.chain.tree(store)?;
            let options = tar::WriteOptions {
                clamp_mtime: clamp(output, image),
            };
            stream(&output.dest, cancel, |out| {
                tar::write_tree(
                    &tree,
                    &StoreContents::new(store),
                    tar::Output::Stream(out),
                    &options,
                )
                .map(|_| ())
                .map_err(|error| {
                    ExportError::caused(ExportErrorKind::Content, "cannot write the tar", error)
                })
            })
        }
        OutputKind::Dir => {
            let Dest::Path(path) = &output.dest else {
                return Err(ExportError::io(
                    "cannot write a directory to standard output",
                    io::ErrorKind::InvalidInput.into(),
                ));
            };
            let tree = image.chain.tree(store)?;
            fs_err::create_dir_all(path)
                .map_err(|error| ExportError::io("cannot make the output directory", error))?;
            let root = open_root(path)
                .map_err(|error| ExportError::io("cannot open the output directory", error))?;
            let contents = StoppableContents {
                inner: StoreContents::new(store),
                cancel,
            };
            export_dir(&tree, &contents, root.as_fd())
                .map(|_| ())
                .map_err(|error| {
                    ExportError::caused(
                        ExportErrorKind::Dest,
                        format!("cannot write to {}", path.display()),
                        error,
                    )
                })
        }
    }
}

fn clamp(output: &Output, image: &Image<'_>) -> Option<Time> {
    output
        .rewrite_timestamp
        .then_some(image.epoch)
        .flatten()
        .map(|secs| Time { secs, nanos: 0 })
}

/// Writes a file beside its destination and renames it when it is whole.
fn beside(
    dest: &Dest,
    write: impl FnOnce(&Path) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let Dest::Path(path) = dest else {
        return Err(ExportError::io(
            "cannot write an image to standard output",
            io::ErrorKind::InvalidInput.into(),
        ));
    };
    let aside = aside(path);
    let result = write(&aside).and_then(|()| {
        fs_err::rename(&aside, path)
            .map_err(|error| ExportError::io(format!("cannot write {}", path.display()), error))
    });
    if result.is_err() {
        let _ = fs_err::remove_file(&aside);
    }
    result
}

/// A name in the same directory that nobody else uses.
pub(super) fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Streams to standard output, or to a file beside its destination.
fn stream(
    dest: &Dest,
    cancel: &Cancel,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    match dest {
        Dest::Stdout => {
            let mut out =
                io::BufWriter::with_capacity(1 << 20, Stoppable::new(io::stdout().lock(), cancel));
            write(&mut out)?;
            out.flush()
                .map_err(|error| ExportError::io("cannot write to standard output", error))
        }
        Dest::Path(_) => beside(dest, |path| {
            let failed = |error| ExportError::io(format!("cannot write {}", path.display()), error);
            let file = File::create(path).map_err(failed)?;
            let mut out = io::BufWriter::with_capacity(1 << 20, Stoppable::new(file, cancel));
            write(&mut out)?;
            out.flush().map_err(failed)
        }),
    }
}

/// A writer that refuses once a stop was asked for.
struct Stoppable<W> {
    inner: W,
    cancel: Cancel,
}

impl<W> Stoppable<W> {
    fn new(inner: W, cancel: &Cancel) -> Self {
        Self {
            inner,
            cancel: cancel.clone(),
        }
    }
}

impl<W: Write> Write for Stoppable<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.cancel.is_raised() {
            return Err(stopped());
        }
        self.inner.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Contents that are no longer given once a stop was asked for.
struct StoppableContents<'a> {
    inner: StoreContents<'a>,
    cancel: &'a Cancel,
}

impl Contents for StoppableContents<'_> {
    fn open(&self, content: &Content) -> io::Result<Opened> {
        if self.cancel.is_raised() {
            return Err(stopped());
        }
        self.inner.open(content)
    }
}

/// Not `Interrupted`: that would be tried again.
fn stopped() -> io::Error {
    io::Error::other("stopped")
}

/// Copies an image with its holes: as a clone where the file system can, else range by range.
fn copy_sparse(source: &Path, dest: &Path, cancel: &Cancel) -> Result<(), ExportError> {
    let failed =
        |error: io::Error| ExportError::io(format!("cannot write {}", dest.display()), error);
    let from = File::open(source).map_err(failed)?;
    let to = File::create(dest).map_err(failed)?;
    if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(());
    }
    let size = from.metadata().map_err(failed)?.len();
    to.set_len(size).map_err(failed)?;
    let mut position = 0;
    while position < size {
        let Ok(start) = rustix::fs::seek(&from, rustix::fs::SeekFrom::Data(position)) else {
            break;
        };
        let end = rustix::fs::seek(&from, rustix::fs::SeekFrom::Hole(start))
            .map_err(|error| failed(error.into()))?;
        let (mut read_at, mut write_at) = (start, start);
        while read_at < end {
            if cancel.is_raised() {
                return Err(failed(stopped()));
            }
            let length = usize::try_from((end - read_at).min(64 << 20)).unwrap_or(usize::MAX);
            let count = rustix::fs::copy_file_range(
                &from,
                Some(&mut read_at),
                &to,
                Some(&mut write_at),
                length,
            )
            .map_err(|error| failed(error.into()))?;
            if count == 0 {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        position = end;
    }
    Ok(())
}
