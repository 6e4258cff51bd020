//! `firebuild kernel import FILE… | --host`.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::catalogue::{ASIDE, Catalogue, check_id};
use super::codec::read_bounded;
use super::deb::{self, Control};
use super::error::{KernelError, KernelErrorKind, io};
use super::files::FileSet;
use super::image::{self, Image, LARGEST_IMAGE};
use super::modules::{self, Closure};
use super::record::{FORMAT, Kernel, Module, Origin};
use super::{host, image::LARGEST_VMLINUX};
use crate::error::Error;
use crate::event::{Event, Events};
use crate::paths::Paths;

/// What to import.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where the kernel is.
    pub source: Source,
    /// Its name in the catalogue; by default its release.
    pub id: Option<String>,
}

/// Where a kernel is.
#[derive(Debug, Clone)]
pub enum Source {
    /// A kernel package (`.deb`), a `vmlinuz`, or a `vmlinux`, compressed or not. Several packages
    /// are taken as one (Ubuntu splits the image from its modules), and may bring the modules of one image.
    Files(Vec<PathBuf>),
    /// The running kernel, below this root (`/`).
    Host(PathBuf),
}

/// What was imported.
#[derive(Debug)]
pub struct Imported {
    /// The kernel as it now stands in the catalogue.
    pub kernel: Kernel,
    /// A kernel of this id was there before and is replaced.
    pub replaced: bool,
}

/// Imports a kernel. It appears in the catalogue whole or not at all.
///
/// # Errors
/// `NotAKernel`, `Unsupported`, `Corrupt` and `TooLarge` tell what is wrong with the files,
/// `NotFound` that `--host` finds no kernel on disk, `BadId`, `Io`.
pub fn import(
    paths: &Paths,
    request: &Request,
    events: Events<'_>,
) -> Result<Imported, KernelError> {
    if let Some(id) = &request.id {
        check_id(id)?;
    }
    paths
        .make_data()
        .map_err(|error| Error::caused(KernelErrorKind::Io, "cannot keep kernels", error))?;
    let catalogue = Catalogue::new(paths);
    let _hold = catalogue.hold_exclusive()?;

    let found = match &request.source {
        Source::Files(files) => from_files(files, catalogue.dir(), events)?,
        Source::Host(root) => from_host(root, events)?,
    };
    events(Event::Stage("unpacking the kernel".to_owned()));
    let image = image::open(found.image, &found.what)?;
    let id = request.id.clone().unwrap_or_else(|| image.release.clone());
    check_id(&id)?;

    events(Event::Stage(format!(
        "resolving modules of {}",
        image.release
    )));
    let closure = match &found.files {
        Some(files) => modules::resolve(files, &image.release)?,
        None => Closure {
            drivers: modules::guess(&image.elf),
            ..Closure::default()
        },
    };
    for warning in &closure.warnings {
        events(Event::Warning(warning.clone()));
    }

    events(Event::Stage(format!("storing the kernel {id}")));
    let (kernel, replaced) = store(&catalogue, &id, &image, closure, found.origin)?;
    if let Some(why) = kernel.unfit() {
        let hint = found
            .hint
            .map(|hint| format!("; {hint}"))
            .unwrap_or_default();
        events(Event::Warning(format!(
            "the kernel {id} cannot run a VM: {why}{hint}"
        )));
    }
    Ok(Imported { kernel, replaced })
}

/// A kernel image on its way, and the files around it.
struct Found {
    image: Vec<u8>,
    /// What to call it in errors.
    what: String,
    /// Where modules are, when they came along.
    files: Option<FileSet>,
    origin: Origin,
    /// What to say when a driver is missing.
    hint: Option<String>,
}

fn from_host(root: &Path, events: Events<'_>) -> Result<Found, KernelError> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    events(Event::Stage(format!(
        "reading the running kernel {release}"
    )));
    let mut files = FileSet::default();
    host::add(root, &release, &mut files)?;
    let name = format!("boot/vmlinuz-{release}");
    let image = files.read(&name, LARGEST_IMAGE)?.unwrap_or_default();
    Ok(Found {
        image,
        what: format!("the running kernel {release}"),
        files: Some(files),
        origin: Origin {
            files: vec!["host".to_owned()],
            package: None,
        },
        hint: None,
    })
}

fn from_files(paths: &[PathBuf], scratch: &Path, events: Events<'_>) -> Result<Found, KernelError> {
    let names: Vec<String> = paths.iter().map(|path| file_name(path)).collect();
    events(Event::Stage(format!("reading {}", names.join(", "))));
    let mut packages = Vec::new();
    let mut images = Vec::new();
    let mut files = FileSet::default();
    for path in paths {
        if is_deb(path)? {
            packages.push(deb::read(path, scratch, &mut files)?);
        } else {
            images.push(path);
        }
    }
    match (images.as_slice(), packages.as_slice()) {
        ([path], []) => {
            let file = fs_err::File::open(path).map_err(|error| io("read", path, error))?;
            let what = path.display().to_string();
            Ok(Found {
                image: read_bounded(file, LARGEST_VMLINUX, &what)?,
                what,
                files: None,
                origin: Origin {
                    files: names,
                    package: None,
                },
                hint: Some("its package brings the modules".to_owned()),
            })
        }
        ([], [_, ..]) => from_packages(paths, names, &packages, files),
        ([path], [package, ..]) if images_in(&files).is_empty() => {
            let file = fs_err::File::open(path).map_err(|error| io("read", path, error))?;
            let what = path.display().to_string();
            Ok(Found {
                image: read_bounded(file, LARGEST_VMLINUX, &what)?,
                what,
                origin: Origin {
                    files: names,
                    package: Some(format!("{} {}", package.package, package.version)),
                },
                files: Some(files),
                hint: None,
            })
        }
        _ => Err(Error::new(
            KernelErrorKind::NotAKernel,
            "these files hold several kernels: give one image, the packages of one kernel, or one image with the packages \
             of its modules",
        )),
    }
}

fn from_packages(
    paths: &[PathBuf],
    names: Vec<String>,
    packages: &[Control],
    files: FileSet,
) -> Result<Found, KernelError> {
    let images = images_in(&files);
    let what = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ");
    let missing = missing_packages(packages);
    let [name] = images.as_slice() else {
        let message = if images.is_empty() {
            let remedy = missing
                .map(|names| format!("; it depends on {names}: import that"))
                .unwrap_or_default();
            format!("{what} holds no kernel (no /boot/vmlinuz-*){remedy}")
        } else {
            format!("{what} holds several kernels: {}", images.join(", "))
        };
        return Err(Error::new(KernelErrorKind::NotAKernel, message));
    };
    if let Some(package) = packages
        .iter()
        .find(|package| !matches!(package.architecture.as_str(), "amd64" | "all"))
    {
        return Err(Error::new(
            KernelErrorKind::Unsupported,
            format!(
                "the package {} is for {}, and a kernel for amd64 is needed",
                package.package, package.architecture
            ),
        ));
    }
    let image = files.read(name, LARGEST_IMAGE)?.unwrap_or_default();
    let package = packages
        .first()
        .map(|package| format!("{} {}", package.package, package.version));
    Ok(Found {
        image,
        what: format!("{name} of {what}"),
        files: Some(files),
        origin: Origin {
            files: names,
            package,
        },
        hint: missing.map(|names| format!("give {names} along with it")),
    })
}

/// The kernel images among the files of packages.
fn images_in(files: &FileSet) -> Vec<String> {
    [
        "boot/vmlinuz-",
        "boot/vmlinux-",
        "usr/lib/modules/",
        "lib/modules/",
    ]
    .iter()
    .flat_map(|prefix| files.names(prefix))
    .filter(|name| name.starts_with("boot/") || name.ends_with("/vmlinuz"))
    .map(str::to_owned)
    .collect()
}

/// The kernel packages that the given ones need and that were not given.
fn missing_packages(packages: &[Control]) -> Option<String> {
    let names: Vec<&str> = packages
        .iter()
        .flat_map(|package| package.depends.split([',', '|']))
        .filter_map(|dependency| dependency.split_ascii_whitespace().next())
        .filter(|name| name.starts_with("linux-image-") || name.starts_with("linux-modules-"))
        .filter(|name| packages.iter().all(|package| package.package != *name))
        .collect();
    (!names.is_empty()).then(|| names.join(" and "))
}

/// Writes everything aside, then moves it into place.
fn store(
    catalogue: &Catalogue,
    id: &str,
    image: &Image,
    closure: Closure,
    origin: Origin,
) -> Result<(Kernel, bool), KernelError> {
    let aside = tempfile::Builder::new()
        .prefix(ASIDE)
        .tempdir_in(catalogue.dir())
        .map_err(|error| io("write in", catalogue.dir(), error))?;
    let dir = aside.path();
    write(&dir.join("vmlinux"), &image.elf)?;
    let module_dir = dir.join("modules");
    fs_err::create_dir(&module_dir).map_err(|error| io("make", &module_dir, error))?;
    let mut modules = Vec::new();
    for (number, module) in closure.modules.into_iter().enumerate() {
        let file = format!("{number:02}-{}.ko", module.name);
        write(&module_dir.join(&file), &module.bytes)?;
        modules.push(Module {
            name: module.name,
            file,
            purposes: module.purposes.into_iter().collect(),
        });
    }
    let kernel = Kernel {
        format: FORMAT,
        id: id.to_owned(),
        release: image.release.clone(),
        banner: image.banner.clone(),
        pvh: image.facts.pvh,
        size: image.elf.len() as u64,
        sha256: hex(&Sha256::digest(&image.elf)),
        imported_at: Timestamp::now(),
        origin,
        drivers: closure.drivers,
        modules,
        dir: catalogue.dir().join(id),
        elsewhere: None,
    };
    let mut record = serde_json::to_vec_pretty(&kernel).map_err(|error| {
        Error::caused(
            KernelErrorKind::Io,
            format!("cannot write the record of the kernel {id}"),
            error,
        )
    })?;
    record.push(b'\n');
    write(&dir.join("kernel.json"), &record)?;
    for dir in [&module_dir, dir] {
        sync(dir)?;
    }
    let replaced = move_into_place(dir, &kernel.dir)?;
    if !replaced {
        // Nothing is left under the temporary name.
        let _ = aside.keep();
    }
    sync(catalogue.dir())?;
    Ok((kernel, replaced))
}

/// Gives the new directory its name; true when it changed places with an old one.
fn move_into_place(new: &Path, place: &Path) -> Result<bool, KernelError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use std::os::unix::fs::PermissionsExt;
    fs_err::set_permissions(new, std::fs::Permissions::from_mode(0o755))
        .map_err(|error| io("open up", new, error))?;
    if place.symlink_metadata().is_ok() {
        renameat_with(CWD, new, CWD, place, RenameFlags::EXCHANGE)
            .map_err(|error| io("replace", place, error))?;
        return Ok(true);
    }
    fs_err::rename(new, place).map_err(|error| io("make", place, error))?;
    Ok(false)
}

fn write(path: &Path, content: &[u8]) -> Result<(), KernelError> {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let mut file = fs_err::File::create_new(path).map_err(|error| io("write", path, error))?;
    // Whatever the umask: a VMM with a user of its own opens its kernel anew.
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
        .and_then(|()| file.write_all(content))
        .and_then(|()| file.sync_all())
        .map_err(|error| io("write", path, error))
}

fn sync(dir: &Path) -> Result<(), KernelError> {
    fs_err::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| io("sync", dir, error))
}

fn is_deb(path: &Path) -> Result<bool, KernelError> {
    use std::io::Read;
    let file = fs_err::File::open(path).map_err(|error| io("read", path, error))?;
    let mut head = Vec::new();
    file.take(deb::MAGIC.len() as u64)
        .read_to_end(&mut head)
        .map_err(|error| io("read", path, error))?;
    Ok(head == deb::MAGIC)
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
