//! `firebuild baseos --bootstrap DISTRIBUTION:SUITE`.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use firebuild_build::cancel::Cancel;
use firebuild_oci::{Digest, Reference};
use firebuild_rootfs::tar::{self, ReadOptions};
use firebuild_rootfs::tree::{Contents, Time, Tree};
use firebuild_rootfs::walk::{self, DirContents, WalkOptions};
use firebuild_store::Store;
use jiff::Timestamp;

use super::apt_config::{self, AptConfig};
use super::distribution::Distribution;
use super::error::{BaseOsError, BaseOsErrorKind, io};
use super::image::{self, Archive, Description};
use super::sources::Source;
use super::tool::{self, Plan, Tool};
use super::{full, mirror, sources, tidy};
use crate::error::{Cause, Error};
use crate::event::{Event, Events};
use crate::paths::Paths;

/// What to make.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to bootstrap.
    pub distribution: Distribution,
    /// The reference of the image; by default [`Distribution::reference`].
    pub tag: Option<Reference>,
    /// Where the packages are: a URL, or `deb …` lines. By default the host's own sources.
    pub mirror: Option<String>,
    /// Make a multi-user system.
    pub full: bool,
    /// More packages.
    pub include: Vec<String>,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Created {
    /// The reference that stands for it now.
    pub reference: Reference,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Size of its layer in bytes.
    pub size: u64,
}

/// Makes a base image. The reference changes only when everything is in the store.
///
/// # Errors
/// `NoTool` and `NoMirror` tell what to do about it; `Failed` has the last lines of the tool as its
/// cause; `BadName` for package names that are none; `Cancelled`; `Content`, `Store`, `Io`.
pub fn create(
    paths: &Paths,
    request: &Request,
    cancel: &Cancel,
    events: Events<'_>,
) -> Result<Created, BaseOsError> {
    let distribution = &request.distribution;
    let reference = match &request.tag {
        Some(tag) => tag.clone(),
        None => distribution.reference().parse().map_err(|error| {
            Error::caused(
                BaseOsErrorKind::BadName,
                format!("{distribution} has no image reference"),
                Cause::from(error),
            )
        })?,
    };
    let tool = Tool::find(
        std::env::var_os("PATH").as_deref(),
        rustix::process::geteuid().as_raw(),
    )?;
    let plan = plan(request)?;
    let store = open_store(paths)?;
    let time = SourceTime::of_process();
    events(Event::Stage(format!("bootstrapping {distribution}")));
    let (mut tree, contents) = match tool {
        Tool::Mmdebstrap => from_archive(&store, &plan, cancel, events)?,
        Tool::Debootstrap => from_directory(&store, &plan, cancel, events)?,
    };

    events(Event::Stage("storing the image".to_owned()));
    edit(&mut tree, request, time.now).map_err(|error| {
        Error::caused(
            BaseOsErrorKind::Content,
            format!("what {tool:?} made is no {distribution}"),
            error,
        )
    })?;
    let description = Description {
        created_by: format!("firebuild baseos --bootstrap {}", distribution.reference()),
        created: Timestamp::from_second(time.now.secs).unwrap_or(Timestamp::UNIX_EPOCH),
        clamp: time.clamp,
        cmd: vec!["bash".to_owned()],
        stop_signal: None,
        reference,
    };
    let stored = image::store(&store, &tree, contents.as_ref(), &description)?;
    Ok(Created {
        reference: description.reference,
        manifest: stored.manifest,
        size: stored.layer_bytes,
    })
}

/// What the tool is told, from the request and the host's apt.
fn plan(request: &Request) -> Result<Plan, BaseOsError> {
    let distribution = &request.distribution;
    let lines = match &request.mirror {
        Some(named) => mirror::named(distribution, named),
        None => {
            let host = sources::read(Path::new("/etc/apt"))?;
            mirror::lines(distribution, &host, |source| {
                origin(Path::new("/var/lib/apt/lists"), source)
            })?
        }
    };
    let AptConfig {
        environment,
        options,
    } = host_apt_config();
    let mut include = request.include.clone();
    if lines.iter().any(|line| line.contains(" https:")) {
        include.push("ca-certificates".to_owned());
    }
    let mut commands = Vec::new();
    if request.full {
        include.extend(full::PACKAGES.iter().map(|&name| name.to_owned()));
        commands = full::commands(distribution);
    }
    if let Some(bad) = include.iter().find(|name| !is_package_name(name)) {
        return Err(Error::new(
            BaseOsErrorKind::BadName,
            format!("'{bad}' is no name of a package"),
        ));
    }
    Ok(Plan {
        suite: distribution.suite().to_owned(),
        lines,
        include,
        apt_options: options,
        commands,
        environment: tool::environment(|name| std::env::var(name).ok(), environment),
    })
}

/// The host's apt configuration; a host without apt has none.
fn host_apt_config() -> AptConfig {
    let output = Command::new("apt-config").arg("dump").output();
    output
        .ok()
        .filter(|output| output.status.success())
        .map(|output| apt_config::parse(&String::from_utf8_lossy(&output.stdout)))
        .unwrap_or_default()
}

/// The origin in the Release file that apt keeps of a repository.
fn origin(lists: &Path, source: &Source) -> Option<String> {
    use std::io::Read;
    let uri = source.uri.split_once("://").map_or("", |(_, rest)| rest);
    let name = format!(
        "{}_dists_{}",
        uri.trim_end_matches('/').replace('/', "_"),
        source.suite.trim_end_matches('/').replace('/', "_")
    );
    ["InRelease", "Release"].iter().find_map(|kind| {
        let file = fs_err::File::open(lists.join(format!("{name}_{kind}"))).ok()?;
        // The field stands among the first lines.
        let mut head = Vec::new();
        file.take(1 << 14).read_to_end(&mut head).ok()?;
        String::from_utf8_lossy(&head)
            .lines()
            .find_map(|line| Some(line.strip_prefix("Origin:")?.trim().to_owned()))
    })
}

/// Policy manual §5.6.1; a leading `-` would be an option, a comma another package.
fn is_package_name(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.:".contains(&byte)
        })
}

fn edit(
    tree: &mut Tree,
    request: &Request,
    now: Time,
) -> Result<(), firebuild_rootfs::tree::TreeError> {
    tidy::tidy(tree)?;
    if request.full {
        full::finish(tree, &request.distribution, now)
    } else {
        tidy::docker_habits(tree, now)
    }
}

type Bootstrapped = (Tree, Box<dyn Contents>);

fn from_archive(
    store: &Store,
    plan: &Plan,
    cancel: &Cancel,
    events: Events<'_>,
) -> Result<Bootstrapped, BaseOsError> {
    let path = store.temporary().map_err(|error| store_error(&error))?;
    let archive = fs_err::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(|error| io("write", &path, error))?
        .into_file();
    // Nobody else needs the name, and without it nothing can stay behind.
    fs_err::remove_file(&path).map_err(|error| io("remove", &path, error))?;
    tool::mmdebstrap(plan, &archive, cancel, events)?;
    let content = |error: Cause| {
        Error::caused(
            BaseOsErrorKind::Content,
            "cannot read what mmdebstrap made",
            error,
        )
    };
    let layer = read_archive(&archive).map_err(content)?;
    let mut tree = Tree::new();
    tree.apply(&layer).map_err(|error| content(error.into()))?;
    Ok((tree, Box::new(Archive(Arc::new(archive)))))
}

fn read_archive(archive: &File) -> Result<firebuild_rootfs::layer::Layer, Cause> {
    use std::io::Seek;
    let mut reader = archive.try_clone()?;
    reader.rewind()?;
    Ok(tar::read_layer(reader, [0; 32], &ReadOptions::default())?)
}

fn from_directory(
    store: &Store,
    plan: &Plan,
    cancel: &Cancel,
    events: Events<'_>,
) -> Result<Bootstrapped, BaseOsError> {
    let root = store.temporary().map_err(|error| store_error(&error))?;
    fs_err::create_dir(&root).map_err(|error| io("make", &root, error))?;
    let made = tool::debootstrap(plan, &root, cancel, events).and_then(|()| {
        let content = |error: Cause| {
            Error::caused(
                BaseOsErrorKind::Content,
                "cannot read what debootstrap made",
                error,
            )
        };
        let dir = walk::open_root(&root).map_err(|error| content(error.into()))?;
        let tree = {
            use std::os::fd::AsFd;
            walk::walk(dir.as_fd(), WalkOptions::default())
                .map_err(|error| content(error.into()))?
        };
        Ok((tree, root.clone(), DirContents::new(dir)))
    });
    match made {
        Ok((tree, root, contents)) => Ok((
            tree,
            Box::new(Directory {
                contents,
                _root: Removed(root),
            }),
        )),
        Err(error) => {
            drop(Removed(root));
            Err(error)
        }
    }
}

/// A bootstrapped directory that goes when its content has been read.
struct Directory {
    contents: DirContents,
    _root: Removed,
}

impl Contents for Directory {
    fn open(
        &self,
        content: &firebuild_rootfs::tree::Content,
    ) -> std::io::Result<firebuild_rootfs::tree::Opened> {
        self.contents.open(content)
    }
}

/// A directory that is removed at the end. What cannot be removed is the store's leftover, which the
/// next process that opens it removes.
struct Removed(std::path::PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs_err::remove_dir_all(&self.0);
    }
}

fn open_store(paths: &Paths) -> Result<Store, BaseOsError> {
    paths
        .make_data()
        .map_err(|error| Error::caused(BaseOsErrorKind::Io, "cannot keep images", error))?;
    Store::open(paths.store())
        .map_err(|error| Error::caused(BaseOsErrorKind::Store, "cannot open the store", error))
}

fn store_error(error: &firebuild_store::StoreError) -> BaseOsError {
    Error::new(BaseOsErrorKind::Store, error.to_string())
}

/// The time of everything that is made here.
struct SourceTime {
    now: Time,
    clamp: Option<Time>,
}

impl SourceTime {
    /// `SOURCE_DATE_EPOCH` (reproducible-builds.org), else the clock.
    fn of_process() -> Self {
        let fixed = std::env::var("SOURCE_DATE_EPOCH")
            .ok()
            .and_then(|text| text.trim().parse::<i64>().ok())
            .map(|secs| Time { secs, nanos: 0 });
        let now = fixed.unwrap_or_else(|| Time {
            secs: Timestamp::now().as_second(),
            nanos: 0,
        });
        Self { now, clamp: fixed }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_package_name, origin};
    use crate::baseos::sources::{SignedBy, Source};

    #[test]
    fn package_names() {
        for good in ["bash", "g++", "libc6:amd64", "0ad", "python3.11"] {
            assert!(is_package_name(good), "{good}");
        }
        for bad in ["", "a", "-x", "a,b", "a b", "a=1", "A1", "a'b"] {
            assert!(!is_package_name(bad), "{bad}");
        }
    }

    #[test]
    fn the_origin_is_read_from_apts_lists() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(
            dir.path().join("m_debian_dists_bookworm_InRelease"),
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: Debian\nLabel: x\n",
        )
        .unwrap();
        let mut source = Source {
            uri: "http://m/debian/".to_owned(),
            suite: "bookworm".to_owned(),
            components: Vec::new(),
            signed_by: SignedBy::Any,
        };
        assert_eq!(origin(dir.path(), &source).as_deref(), Some("Debian"));
        source.suite = "trixie".to_owned();
        assert_eq!(origin(dir.path(), &source), None);
    }
}
