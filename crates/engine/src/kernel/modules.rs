//! From the wanted drivers to the modules that must be loaded, in an order that works.
//!
//! Hard dependencies come first; soft ones come first where they exist; what asks for a module to
//! follow it gets that too. Drivers that are built in need nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::codec::{Compression, decompress};
use super::drivers::{DRIVERS, Purpose, normalise};
use super::error::{KernelError, KernelErrorKind};
use super::files::FileSet;
use super::modinfo::{self, Modinfo};
use super::record::Presence;
use crate::error::Error;

/// Real modules stay under 20 MiB even with debug information.
const LARGEST_MODULE: usize = 64 << 20;
/// The closure of the wanted drivers is some thirty modules.
const MOST_MODULES: usize = 99;
/// `modules.builtin` and its kin.
const LARGEST_LIST: usize = 16 << 20;

/// A module of the closure, decompressed.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) purposes: BTreeSet<Purpose>,
}

/// What was found for the wanted drivers.
#[derive(Debug, Default)]
pub(crate) struct Closure {
    /// In load order.
    pub(crate) modules: Vec<Resolved>,
    pub(crate) drivers: BTreeMap<String, Presence>,
    pub(crate) warnings: Vec<String>,
}

/// Finds the modules of `release` in `files` that the wanted drivers need.
///
/// # Errors
/// A module that cannot be read or is no module; a closure beyond all measure. A driver that is not
/// there, or lacks a dependency, is a fact in the result and no error.
pub(crate) fn resolve(files: &FileSet, release: &str) -> Result<Closure, KernelError> {
    let mut resolver = Resolver::new(files, release)?;
    let mut closure = Closure::default();
    for driver in DRIVERS {
        let presence = match resolver.load(driver.name, driver.purpose)? {
            Load::Builtin => Presence::Builtin,
            Load::Module => Presence::Module,
            Load::Missing(why) => {
                closure.warnings.extend(why);
                Presence::Missing
            }
        };
        closure.drivers.insert(driver.name.to_owned(), presence);
    }
    closure.modules = resolver.into_modules();
    Ok(closure)
}

/// What the kernel alone shows, where no package tells what is built in.
pub(crate) fn guess(vmlinux: &[u8]) -> BTreeMap<String, Presence> {
    DRIVERS
        .iter()
        .map(|driver| {
            let presence = match super::elf::find(vmlinux, driver.marker.as_bytes()) {
                Some(_) => Presence::Builtin,
                None => Presence::Unknown,
            };
            (driver.name.to_owned(), presence)
        })
        .collect()
}

enum Load {
    Builtin,
    Module,
    Missing(Option<String>),
}

struct Candidate {
    info: Modinfo,
    bytes: Vec<u8>,
    purposes: BTreeSet<Purpose>,
}

struct Resolver<'a> {
    files: &'a FileSet,
    /// Module name to file name.
    paths: BTreeMap<String, &'a str>,
    builtin: BTreeSet<String>,
    builtin_aliases: BTreeMap<String, String>,
    /// Modules read so far.
    read: BTreeMap<String, Candidate>,
    /// Names in load order.
    order: Vec<String>,
}

impl<'a> Resolver<'a> {
    fn new(files: &'a FileSet, release: &str) -> Result<Self, KernelError> {
        let mut paths = BTreeMap::new();
        let mut builtin = BTreeSet::new();
        let mut builtin_aliases = BTreeMap::new();
        for root in ["lib/modules", "usr/lib/modules"] {
            let dir = format!("{root}/{release}/");
            let found: Vec<&'a str> = files
                .names(&dir)
                .filter(|name| module_name(name).is_some())
                .collect();
            // What the kernel was built with wins over what was added later under updates/ or extra/.
            let (own, added): (Vec<_>, Vec<_>) = found
                .into_iter()
                .partition(|name| name[dir.len()..].starts_with("kernel/"));
            for name in own.into_iter().chain(added) {
                if let Some(module) = module_name(name) {
                    paths.entry(module).or_insert(name);
                }
            }
            if let Some(list) = files.read(&format!("{dir}modules.builtin"), LARGEST_LIST)? {
                let list = String::from_utf8_lossy(&list);
                builtin.extend(list.lines().filter_map(module_name));
            }
            let modinfo = files.read(&format!("{dir}modules.builtin.modinfo"), LARGEST_LIST)?;
            if let Some(records) = modinfo {
                builtin_aliases.extend(modinfo::builtin_aliases(&records));
            }
        }
        Ok(Self {
            files,
            paths,
            builtin,
            builtin_aliases,
            read: BTreeMap::new(),
            order: Vec::new(),
        })
    }

    /// Puts a driver and all it needs into the load order.
    fn load(&mut self, name: &str, purpose: Purpose) -> Result<Load, KernelError> {
        if self.builtin.contains(name) {
            return Ok(Load::Builtin);
        }
        if !self.paths.contains_key(name) {
            return Ok(Load::Missing(None));
        }
        let mut order = Vec::new();
        let mut after = Vec::new();
        if let Err(missing) = self.visit(name, &mut order, &mut after)? {
            return Ok(Load::Missing(Some(format!(
                "{name} is left out: {missing}"
            ))));
        }
        for extra in after {
            let mut more = Vec::new();
            if self.visit(&extra, &mut more, &mut Vec::new())?.is_ok() {
                order.extend(more);
            }
        }
        for module in order {
            if let Some(candidate) = self.read.get_mut(&module) {
                candidate.purposes.insert(purpose);
            }
            if !self.order.contains(&module) {
                self.order.push(module);
            }
        }
        if self.order.len() > MOST_MODULES {
            return Err(Error::new(
                KernelErrorKind::TooLarge,
                format!("the wanted drivers need more than {MOST_MODULES} modules"),
            ));
        }
        Ok(Load::Module)
    }

    /// Depth first, what is needed before what needs it. The stack is explicit, so a chain of
    /// dependencies of any length ends in an error and not in a crash. A circle is cut where it closes,
    /// as only soft dependencies can make one.
    ///
    /// The inner error names the hard dependency that is not there.
    fn visit(
        &mut self,
        name: &str,
        order: &mut Vec<String>,
        after: &mut Vec<String>,
    ) -> Result<Result<(), String>, KernelError> {
        enum Step {
            Enter(String),
            Leave(String),
        }
        let mut entered = BTreeSet::new();
        let mut stack = vec![Step::Enter(name.to_owned())];
        while let Some(step) = stack.pop() {
            let name = match step {
                Step::Leave(name) => {
                    order.push(name);
                    continue;
                }
                Step::Enter(name) => name,
            };
            if !entered.insert(name.clone()) {
                continue;
            }
            if entered.len() > MOST_MODULES {
                return Ok(Err(format!("it needs more than {MOST_MODULES} modules")));
            }
            let info = self.info(&name)?;
            stack.push(Step::Leave(name.clone()));
            for needed in &info.depends {
                if self.builtin.contains(needed) {
                    continue;
                }
                if !self.paths.contains_key(needed) {
                    return Ok(Err(format!(
                        "{name} needs the module {needed}, which is not there"
                    )));
                }
                stack.push(Step::Enter(needed.clone()));
            }
            for wish in &info.soft_before {
                if let Some(module) = self.provider(wish)? {
                    stack.push(Step::Enter(module));
                }
            }
            for wish in &info.soft_after {
                after.extend(self.provider(wish)?);
            }
        }
        Ok(Ok(()))
    }

    /// The module that serves a soft dependency, which may be an alias (`crypto-crc32c`). `None` when
    /// it is built in or unknown.
    fn provider(&mut self, wish: &str) -> Result<Option<String>, KernelError> {
        let name = normalise(wish);
        if self.builtin.contains(&name) || self.builtin_aliases.contains_key(wish) {
            return Ok(None);
        }
        if self.paths.contains_key(&name) {
            return Ok(Some(name));
        }
        // All aliases would mean to decompress every module. Providers of an alias are called after it:
        // crypto-crc32c is served by crc32c_generic and crc32c_intel.
        let stem = normalise(wish.strip_prefix("crypto-").unwrap_or(wish));
        let stem = format!("{stem}_");
        if self.builtin.iter().any(|name| name.starts_with(&stem)) {
            return Ok(None);
        }
        let similar: Vec<String> = self
            .paths
            .keys()
            .filter(|name| name.starts_with(&stem))
            .cloned()
            .collect();
        // The generic one works on every processor.
        let (generic, other): (Vec<_>, Vec<_>) = similar
            .into_iter()
            .partition(|name| name.ends_with("_generic"));
        for name in generic.into_iter().chain(other).take(8) {
            if self.info(&name)?.aliases.iter().any(|alias| alias == wish) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn info(&mut self, name: &str) -> Result<Modinfo, KernelError> {
        if let Some(candidate) = self.read.get(name) {
            return Ok(candidate.info.clone());
        }
        let path = self.paths.get(name).copied().unwrap_or_default();
        let bytes = self
            .files
            .read(path, LARGEST_MODULE)?
            .ok_or_else(|| Error::new(KernelErrorKind::Corrupt, format!("no module {name}")))?;
        let bytes = match Compression::sniff(&bytes) {
            Some(compression) => decompress(compression, &bytes, LARGEST_MODULE, path)?,
            None => bytes,
        };
        let info = modinfo::read(&bytes).ok_or_else(|| {
            Error::new(
                KernelErrorKind::Corrupt,
                format!("{path} is not a kernel module: it has no .modinfo section"),
            )
        })?;
        self.read.insert(
            name.to_owned(),
            Candidate {
                info: info.clone(),
                bytes,
                purposes: BTreeSet::new(),
            },
        );
        Ok(info)
    }

    fn into_modules(mut self) -> Vec<Resolved> {
        let order = std::mem::take(&mut self.order);
        order
            .into_iter()
            .filter_map(|name| {
                let candidate = self.read.remove(&name)?;
                Some(Resolved {
                    name,
                    bytes: candidate.bytes,
                    purposes: candidate.purposes,
                })
            })
            .collect()
    }
}

/// The module in a file called `…/virtio-rng.ko`, `.ko.xz`, `.ko.zst` or `.ko.gz`.
fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"]
        .iter()
        .find_map(|suffix| file.strip_suffix(suffix))?;
    (!stem.is_empty()).then(|| normalise(stem))
}
