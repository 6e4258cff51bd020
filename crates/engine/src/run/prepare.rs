//! From a request to everything that a monitor needs, without starting anything.

use std::sync::Arc;

use firebuild_guest_proto::{Channel, EnvVar, RootLayout, RunConfig, Signal, WindowSize};
use firebuild_oci::{ContainerConfig, Healthcheck};
use firebuild_store::Store;
use firebuild_vm::net::host::HostNetwork;
use firebuild_vm::spec::{
    ConsoleLog, Disk, KernelFormat, MmdsSpec, Network, ROOT_DISK_SERIAL, SCRATCH_DISK_SERIAL,
    SPEC_FORMAT, VmSpec,
};
use jiff::Timestamp;

use super::command::{Argv, argv};
use super::env::{merge, set_by};
use super::error::{RunError, RunErrorKind};
use super::metadata::{Subject, document};
use super::network;
use super::request::{DiskFor, ImageDisk, NetworkMode, Request};
use super::{health, init};
use crate::error::Error;
use crate::instance::{FORMAT, InstanceId, MASK, NetworkRecord, RECORDS, Record};
use crate::kernel::{Catalogue, Hold, Kernel, Presence, Purpose};
use crate::monitor::order::{ModuleFile, Order, Scratch};
use crate::paths::Paths;
use crate::vmm::{Chosen, choose};

/// The console is the kernel's and the init's; a few lines, unless something goes wrong over and over.
const CONSOLE_BYTES: u64 = 4 << 20;

/// An order and the record of what it is for.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) record: Record,
    pub(crate) order: Order,
    /// Things to tell once.
    pub(crate) notices: Vec<String>,
    /// Keeps the image's disk until the record names it.
    pub(crate) held: Option<Arc<Store>>,
}

/// Keeps kernels from being removed until the machine has its own open. Waits for an import that is under way.
pub(crate) fn hold(paths: &Paths) -> Result<Hold, RunError> {
    Catalogue::new(paths)
        .hold()
        .map_err(|error| Error::caused(RunErrorKind::Kernel, "no kernel for the VM", error))
}

/// Resolves a request. `size` is that of the caller's terminal, if it has one.
pub(crate) fn prepare(
    paths: &Paths,
    request: &Request,
    kernel: &Kernel,
    host: &HostNetwork,
    size: Option<WindowSize>,
    disk_for: DiskFor<'_>,
) -> Result<Prepared, RunError> {
    let mut notices = Vec::new();
    let overlay = matches!(
        kernel.presence(Purpose::Overlay),
        Presence::Builtin | Presence::Module
    );
    // A copy is the guest's only disk, so it has to have the room that a scratch disk would give.
    let wanted = (!overlay).then_some(request.disk_bytes);
    let image = disk_for(&request.image, wanted).map_err(|cause| {
        Error::caused(
            RunErrorKind::Image,
            format!("cannot run {}", request.image),
            cause,
        )
    })?;
    if !overlay {
        notices.push(format!(
            "the kernel {} has no overlayfs: this VM gets a private copy of the image's disk",
            kernel.id
        ));
    }
    let vmm = choose(
        &request.vmm,
        request.accel,
        request.machine,
        request.network,
        paths.state(),
    )?;
    if let Some(why) = vmm.unfit(kernel) {
        return Err(Error::new(
            RunErrorKind::Kernel,
            format!(
                "the kernel {} cannot run this VM: {why}; name another with --vmlinux-id",
                kernel.id
            ),
        ));
    }
    let id = InstanceId::random()
        .map_err(|error| Error::caused(RunErrorKind::Instance, "cannot name the VM", error))?;
    let mode = network::resolve(request.network, vmm.has_user_network())?;
    let purposes = purposes(&vmm, request, mode, overlay);
    if request.hardware.balloon.is_some()
        && !matches!(
            kernel.presence(Purpose::Balloon),
            Presence::Builtin | Presence::Module
        )
    {
        notices.push(format!(
            "nothing is known of a balloon driver in the kernel {}; without one the balloon stays as it is, import the \
             kernel again to look for it",
            kernel.id
        ));
    }
    let mut guest = guest(request, &image, size, overlay, &id)?;
    notices.extend(network::configure(&mut guest.config, mode, host));
    notices.extend(network::address_notice(request, mode));
    if let (Some(mtu), Some(interface)) =
        (request.hardware.mtu, guest.config.interfaces.first_mut())
    {
        interface.mtu = Some(mtu.into());
    }
    let (hosts, gateway_names) = request.names.entries(mode != NetworkMode::None)?;
    guest.config.hosts = hosts;
    guest.config.resolver = request.names.resolver(guest.config.resolver.take());
    guest.config.channel = vmm.channel();
    guest.config.root = vmm.root(overlay);
    let mut metadata_modules = Vec::new();
    for (module, _) in kernel.modules_for(&purposes) {
        let path = format!("{}/{}", firebuild_guest_proto::MODULES_DIR, module.file);
        let only = |purpose: &Purpose| *purpose == Purpose::Metadata || !purposes.contains(purpose);
        if module.purposes.iter().all(only) {
            metadata_modules.push(path);
        } else {
            guest.config.modules.push(path);
        }
    }
    let mut spec = spec(paths, request, kernel, &image, overlay, &id);
    spec.kernel.builtin = kernel.modules_for(&purposes).is_empty() && kernel.modules.is_empty();
    spec.network = network::spec(request, mode, &id);
    let mut record = record(request, &image, kernel, &guest, id.clone());
    record.network = network::record(request, mode, host);
    if let Some(wanted) = &request.mmds {
        let subject = Subject {
            id: id.as_str(),
            image_tag: &image.name,
            image: &image.config.config,
            argv: &Argv {
                words: guest.config.argv.clone(),
                entrypoint_words: guest.entrypoint_words,
            },
            kernel: &kernel.id,
            overlay,
        };
        spec.mmds = Some(MmdsSpec {
            version: wanted.version,
            imds_compat: wanted.imds_compat,
            document: document(wanted, request, &guest.config, &subject)?.into(),
        });
    }
    let scratch = if overlay {
        Scratch::Empty {
            bytes: request.disk_bytes,
        }
    } else {
        Scratch::Copy {
            of: image.path.clone(),
        }
    };
    let modules = kernel
        .modules_for(&purposes)
        .into_iter()
        .map(|(module, path)| ModuleFile {
            name: module.file.clone(),
            path,
        })
        .collect();
    Ok(Prepared {
        record,
        order: Order {
            id,
            vmm,
            instances: paths.instances(),
            state: paths.state().to_owned(),
            runtime: paths.runtime().to_owned(),
            spec,
            guest: guest.config,
            modules,
            metadata_modules,
            scratch,
            gateway_names,
            remove: request.remove,
        },
        notices,
        held: image.held,
    })
}

/// What the machine that is planned for needs from its kernel.
fn purposes(vmm: &Chosen, request: &Request, network: NetworkMode, overlay: bool) -> Vec<Purpose> {
    let mut purposes = vmm.purposes().to_vec();
    if overlay {
        purposes.push(Purpose::Overlay);
    }
    if network != NetworkMode::None {
        purposes.push(Purpose::Network);
    }
    if request.hardware.balloon.is_some() {
        purposes.push(Purpose::Balloon);
    }
    if request.hardware.entropy_limit.is_some() {
        purposes.push(Purpose::Random);
    }
    if request.mmds.is_some() && !vmm.serves_metadata(network != NetworkMode::None) {
        purposes.push(Purpose::Metadata);
    }
    purposes
}

/// The guest's configuration and where its program ends and its arguments begin.
struct Guest {
    config: RunConfig,
    entrypoint_words: usize,
    healthcheck: Option<Healthcheck>,
}

fn guest(
    request: &Request,
    image: &ImageDisk,
    size: Option<WindowSize>,
    overlay: bool,
    id: &InstanceId,
) -> Result<Guest, RunError> {
    let of_image: &ContainerConfig = &image.config.config;
    let Argv {
        words,
        entrypoint_words,
    } = argv(of_image, request.entrypoint.as_deref(), &request.arguments).ok_or_else(|| {
        Error::new(
            RunErrorKind::Command,
            format!(
                "{} names no command (neither ENTRYPOINT nor CMD): give one after --",
                image.name
            ),
        )
    })?;
    let hostname = match &request.hostname {
        Some(name) => checked_hostname(name)?,
        None => id.short().to_owned(),
    };
    let root = if overlay {
        RootLayout::overlay()
    } else {
        RootLayout::private()
    };
    let mut config = RunConfig::new(words, hostname, root, Channel::virtio_serial());
    config.env = merge(
        &of_image.env,
        &request.env,
        &config.hostname,
        request.terminal,
    );
    if request.run_env {
        config.login_env = set_by(&request.env, &config.env);
    }
    config.accounts = request.access.accounts()?;
    config.cwd = workdir(request, of_image)?;
    config.user = request
        .user
        .clone()
        .unwrap_or_else(|| of_image.user.clone());
    config.stop_signal = stop_signal(request, of_image)?;
    let healthcheck = health::merged(of_image, &request.health);
    config.health = healthcheck
        .as_ref()
        .and_then(|check| health::check(check, of_image.shell.as_deref()));
    config.system = init::system(request, &config.argv);
    config.stdin = request.stdin;
    config.terminal = request.terminal.then(|| {
        size.unwrap_or(WindowSize {
            rows: 24,
            columns: 80,
        })
    });
    if request.verbose {
        config.log_level = firebuild_guest_proto::LogLevel::Debug;
    }
    config.validate().map_err(|error| {
        Error::caused(
            RunErrorKind::Flag,
            format!("{} cannot be run like this", image.name),
            error,
        )
    })?;
    Ok(Guest {
        config,
        entrypoint_words,
        healthcheck,
    })
}

fn workdir(request: &Request, image: &ContainerConfig) -> Result<String, RunError> {
    match &request.workdir {
        Some(dir) if dir.starts_with('/') => Ok(dir.clone()),
        Some(dir) => Err(Error::new(
            RunErrorKind::Flag,
            format!("the working directory '{dir}' is not absolute"),
        )),
        None if image.working_dir.is_empty() => Ok("/".to_owned()),
        None if image.working_dir.starts_with('/') => Ok(image.working_dir.clone()),
        // An image made by hand; Docker takes it from the root.
        None => Ok(format!("/{}", image.working_dir)),
    }
}

fn stop_signal(request: &Request, image: &ContainerConfig) -> Result<Signal, RunError> {
    let Some(text) = request
        .stop_signal
        .as_ref()
        .or(image.stop_signal.as_ref())
        .filter(|text| !text.is_empty())
    else {
        return Ok(Signal::TERM);
    };
    text.parse().map_err(|error| {
        Error::caused(
            RunErrorKind::Flag,
            format!("the stop signal '{text}' cannot be used"),
            crate::error::Cause::from(error),
        )
    })
}

/// RFC 1123: labels of letters, digits and hyphens; the whole within what Linux takes.
fn checked_hostname(name: &str) -> Result<String, RunError> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.len() <= 64 && name.split('.').all(label) {
        return Ok(name.to_owned());
    }
    Err(Error::new(
        RunErrorKind::Flag,
        format!(
            "'{name}' cannot be a host name: letters, digits and hyphens can, in labels of at most 63, \
             64 in all"
        ),
    ))
}

fn spec(
    paths: &Paths,
    request: &Request,
    kernel: &Kernel,
    image: &ImageDisk,
    overlay: bool,
    id: &InstanceId,
) -> VmSpec {
    let dir = paths.instances().join(id.as_str());
    let own = |name: &str, serial: &str| Disk {
        path: dir.join(name),
        read_only: false,
        serial: serial.to_owned(),
        settings: if overlay {
            request.scratch_disk.clone()
        } else {
            request.root_disk.clone()
        },
    };
    let disks = if overlay {
        vec![
            Disk {
                path: image.path.clone(),
                read_only: true,
                serial: ROOT_DISK_SERIAL.to_owned(),
                settings: request.root_disk.clone(),
            },
            own(RECORDS.scratch, SCRATCH_DISK_SERIAL),
        ]
    } else {
        vec![own(RECORDS.copy, ROOT_DISK_SERIAL)]
    };
    VmSpec {
        format: SPEC_FORMAT,
        id: id.as_str().to_owned(),
        cpus: request.cpus,
        memory_mib: request.memory_mib,
        kernel: firebuild_vm::spec::Kernel {
            path: kernel.vmlinux(),
            format: if kernel.pvh {
                KernelFormat::ElfPvh
            } else {
                KernelFormat::Elf
            },
            builtin: false,
        },
        // Made by whoever launches: it holds secrets.
        initrd: Vec::new(),
        kernel_args: request.kernel_args.clone(),
        disks,
        network: Network::None,
        console: ConsoleLog {
            path: Some(dir.join(RECORDS.console)),
            max_bytes: CONSOLE_BYTES,
        },
        accel: request.accel,
        machine: request.machine,
        hardware: request.hardware.clone(),
        mmds: None,
    }
}

fn record(
    request: &Request,
    image: &ImageDisk,
    kernel: &Kernel,
    guest: &Guest,
    id: InstanceId,
) -> Record {
    let config = &guest.config;
    Record {
        format: FORMAT,
        id,
        name: String::new(), // chosen when it is created
        image: image.name.clone(),
        image_digest: image.digest.clone(),
        labels: image.config.config.labels.clone(),
        created_at: Timestamp::now(),
        argv: config.argv.clone(),
        entrypoint_words: guest.entrypoint_words,
        env: config.env.iter().map(masked).collect(),
        cwd: config.cwd.clone(),
        user: config.user.clone(),
        hostname: config.hostname.clone(),
        stop_signal: config.stop_signal.to_string(),
        system: config.system.is_some(),
        stop_timeout: request.stop_timeout,
        restart: request.restart,
        healthcheck: guest.healthcheck.clone(),
        kernel: kernel.id.clone(),
        kernel_args: request.kernel_args.clone(),
        cpus: request.cpus,
        memory_mib: request.memory_mib,
        disk_bytes: request.disk_bytes,
        image_disk: image.path.display().to_string(),
        network: NetworkRecord::default(),
        detached: false,
        remove: request.remove,
        terminal: request.terminal,
        stdin: request.stdin,
        stdin_once: false,
        metadata: request.mmds.is_some(),
        interface_limits: request.hardware.interface.clone(),
    }
}

fn masked(variable: &EnvVar) -> String {
    format!("{}={MASK}", variable.name)
}
