//! `firebuild run`: an image in a VM.

use std::process::ExitCode;

use firebuild_engine::cancel::Cancel;
use firebuild_engine::images;
use firebuild_engine::instance::RestartPolicy;
use firebuild_engine::monitor::{Notice, Stdio};
use firebuild_engine::paths::Paths;
use firebuild_engine::profile::Profile;
use firebuild_engine::run::{self, ImageDisk, NetworkMode, Request, env, publish as ports};
use firebuild_engine::vmm::machine_config;
use firebuild_oci::Reference;

use super::{Done, publish, vmm};
use crate::args::{NetworkArg, PrintVm, ProgressMode, RunArgs};
use crate::failure::{FAILED_TO_RUN, Failure};
use crate::flags::{Log, Roots};
use crate::init::VMINIT;
use crate::report::output;
use crate::report::progress::Progress;
use crate::sizes;

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &RunArgs, profile: &Profile, log: &Log) -> Done {
    let roots = args.storage.roots(profile);
    let mut request = request(args, profile)?;
    request.kernel_root.clone_from(&roots.kernel);
    mention_unused(args, log);
    // Before the signals of this process become the application's: Ctrl+C ends a pull as it ends any program.
    let disk = image_disk(paths, &request, &roots)?;
    let mut disk_for = |reference: &Reference, size: Option<u64>| match size {
        None => Ok(disk.clone()),
        Some(_) => {
            let cancel = Cancel::new()?;
            images::disk_for(paths, reference, size, &|_| {}, &cancel).map_err(Into::into)
        }
    };
    if let Some(what) = args.print {
        let printed = run::print(paths, &request, &mut disk_for).map_err(with_hint)?;
        output::line(match what {
            PrintVm::Spec => &printed.spec,
            PrintVm::Plan => &printed.plan,
        });
        return Ok(ExitCode::SUCCESS);
    }
    let mut notices = |notice| match notice {
        Notice::Note(text) => output::note(&format!("note: {text}")),
        Notice::Guest(text) => output::note(&format!("guest: {text}")),
        _ => {}
    };
    if args.daemonize {
        return match run::detached(paths, &request, &mut disk_for, &mut notices)
            .map_err(with_hint)?
        {
            Ok(started) => {
                if log.as_json() {
                    super::ls::original_daemon_record(paths, started.id.as_str());
                }
                output::line(started.id.as_str());
                Ok(ExitCode::SUCCESS)
            }
            Err(outcome) => Ok(ended(&outcome)),
        };
    }
    let stdio = Stdio::of_process(request.stdin)
        .map_err(|error| Failure::new(error).code(FAILED_TO_RUN))?;
    run::foreground(paths, &request, VMINIT, stdio, &mut disk_for, &mut notices)
        .map(|outcome| ended(&outcome))
        .map_err(with_hint)
}

pub(super) fn ended(outcome: &run::Outcome) -> ExitCode {
    if let Some(error) = &outcome.error {
        output::note(&format!("error: {error}"));
    }
    ExitCode::from(outcome.exit_code)
}

/// What people most often have to do first.
pub(super) fn with_hint(error: run::RunError) -> Failure {
    use run::RunErrorKind;
    let hint = match error.kind() {
        RunErrorKind::Kernel => Some(
            "firebuild kernel import linux-image-….deb takes a distribution's kernel (apt-get download linux-image-cloud-amd64's \
             dependency), firebuild kernel import --host the running one",
        ),
        RunErrorKind::Port => {
            Some("ss -ltnup shows who listens there; publish another port with -p")
        }
        RunErrorKind::NoSpace => Some("free some space, or point --home to a larger disk"),
        _ => None,
    };
    let code = match error.kind() {
        RunErrorKind::Cancelled(signal) => 128 + signal,
        _ => FAILED_TO_RUN,
    };
    let failure = Failure::new(error).code(code);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn image_disk(paths: &Paths, request: &Request, roots: &Roots) -> Result<ImageDisk, Failure> {
    let progress = Progress::new(ProgressMode::Auto);
    let cancel = Cancel::new().map_err(|error| Failure::new(error).code(FAILED_TO_RUN))?;
    images::disk_for(
        paths,
        &request.image,
        None,
        &|event| progress.event(event),
        &cancel,
    )
    .map_err(|error| {
        let missing = error.kind() == images::ImageErrorKind::NotFound;
        let failure = Failure::new(error).code(FAILED_TO_RUN);
        match publish::hint(roots, &request.image).filter(|_| missing) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

fn mention_unused(args: &RunArgs, log: &Log) {
    let mut unused = args.machine.unused_by_run();
    unused.extend(args.cni.given());
    if args.vmm.netns.is_some() && args.network == NetworkArg::User {
        unused.push("--netns");
    }
    unused.extend(args.tracing.given());
    log.mention(&unused, "with QEMU and user-mode networking");
}

/// The image and the command: `[--from] IMAGE [--] [COMMAND [ARG]...]`.
fn words(args: &RunArgs) -> Result<(String, Vec<String>), Failure> {
    let mut words = args.words.clone();
    let image = match &args.from {
        Some(image) => image.clone(),
        None if words.is_empty() => {
            return Err(Failure::usage("no image was given")
                .hint("firebuild run IMAGE, or firebuild run --from IMAGE -- COMMAND"));
        }
        None => words.remove(0),
    };
    if words.first().is_some_and(|word| word == "--") {
        words.remove(0);
    }
    Ok((image, words))
}

fn request(args: &RunArgs, profile: &Profile) -> Result<Request, Failure> {
    let (image, arguments) = words(args)?;
    let reference: Reference = image
        .parse()
        .map_err(|error| Failure::new(error).code(FAILED_TO_RUN))?;
    let caller = |name: &str| std::env::var(name).ok();
    let mut request = Request::new(reference);
    request.arguments = arguments;
    request.entrypoint.clone_from(&args.entrypoint);
    for file in &args.env_file {
        request.env.extend(
            env::read_file(file, caller)
                .map_err(|error| Failure::new(error).code(FAILED_TO_RUN))?,
        );
    }
    for text in &args.env {
        request
            .env
            .push(env::parse_flag(text, caller).map_err(|error| Failure::new(error).code(2))?);
    }
    request.run_env = !args.access.no_run_env;
    request.names = args.access.names();
    request.access = args.access.access(args.machine.ssh_user.as_ref());
    request.mmds = args.mmds.wanted(args.machine.no_mmds == Some(true));
    request.user.clone_from(&args.user);
    request.workdir.clone_from(&args.workdir);
    request.hostname.clone_from(&args.hostname);
    request.name.clone_from(&args.name);
    for text in &args.publish {
        request
            .publish
            .extend(ports::parse(text).map_err(|error| Failure::new(error).code(2))?);
    }
    request.network = match args.network {
        NetworkArg::Auto => NetworkMode::Auto,
        NetworkArg::User => NetworkMode::User,
        NetworkArg::Bridge => NetworkMode::Bridge,
        NetworkArg::None => NetworkMode::None,
    };
    if args.network != NetworkArg::User {
        request.netns.clone_from(&args.vmm.netns);
    }
    request.ip_address = args.machine.ip_address;
    request.remove = args.rm;
    request.terminal = args.tty;
    // Standard input reaches an application in the foreground, with or without `-i`.
    request.stdin = !args.daemonize || args.interactive;
    request.stop_signal.clone_from(&args.stop_signal);
    vmm::apply(&mut request, args, profile)?;
    request.init = args.init.into();
    request.stop_timeout = args.stop_timeout;
    request.restart = args.restart;
    if args.rm && args.restart != RestartPolicy::No {
        return Err(Failure::usage(
            "--rm removes the VM when it ends, and --restart starts it again",
        )
        .hint("leave one of them out"));
    }
    request.health = args.health.flags();
    if let Some(cpus) = args.machine.cpu {
        request.cpus = cpus;
    }
    if let Some(mem) = &args.machine.mem {
        request.memory_mib = sizes::mebibytes(mem, "--mem")?;
    }
    request.disk_bytes = sizes::bytes(&args.disk_size, "--disk-size")?;
    request.kernel.clone_from(&args.machine.vmlinux_id);
    let words = args.machine.kernel_args.as_deref().unwrap_or_default();
    request.kernel_args.extend(machine_config::words(words));
    request.accel = args.accel.into();
    request.verbose = args.console;
    Ok(request)
}
