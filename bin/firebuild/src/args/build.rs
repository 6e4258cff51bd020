//! `firebuild rootfs` and `baseos`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::IsolationArgs;
use crate::flags::{Cni, Jailer, Machine, RunCache, Storage, Tracing};

/// `firebuild rootfs`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild rootfs --dockerfile Dockerfile --tag me/app:1\n  \
    firebuild build -f Dockerfile -t me/app:1 --build-arg VERSION=3 .\n  \
    firebuild build -t me/app:1 https://github.com/me/app.git#v1:docker\n  \
    firebuild build -t me/app:1 --output type=oci,dest=app.tar --output type=ext4,dest=app.ext4 .\n  \
    firebuild build -t me/app:1 --isolation=microvm --mem 4G .\n  \
    firebuild build --network=none .                  no RUN step reaches the network\n  \
    firebuild build --check .                        what the linter has to say, and how to fix it\n  \
    firebuild build --call=targets .                 the stages, with their comments\n  \
    firebuild build -t registry.lan:5000/me/app:1 --push --metadata-file build.json .\n  \
    firebuild build -o type=docker,name=me/app:1 . | docker load\n\n\
Outputs (-o, several at once; without any it is type=ext4):\n  \
    ext4       disk to boot, under the tag in the catalogue; with dest=FILE also there\n  \
    erofs      read-only file system image: dest=FILE\n  \
    initrd     cpio archive that a kernel boots: dest=FILE, compression=uncompressed|gzip|zstd\n  \
    oci        OCI image layout: dest=FILE (- is standard output), or tar=false,dest=DIR\n  \
    docker     archive for docker load: dest=FILE or standard output\n  \
    image      into the image store, with push=true (or type=registry) to a registry:\n             \
               name=, push-by-digest=, registry.insecure=, store=\n  \
    tar, local all files, as a tar or in a directory: dest=, mode=copy|delete\n  \
    cacheonly  nothing, only the cache is filled\n  \
    DIR, -     short for type=local,dest=DIR and type=tar,dest=-\n\
Images also take name=, compression=gzip|zstd|uncompressed, compression-level=, force-compression=,\n\
oci-mediatypes=, annotation.KEY=VALUE, rewrite-timestamp=.")]
pub(crate) struct RootfsArgs {
    /// Build context: a directory, a tar archive, - (archive or Dockerfile on standard input), or the address of a git
    /// repository, an archive or a Dockerfile (default: the Dockerfile's own)
    #[arg(value_name = "CONTEXT")]
    pub(crate) path: Option<String>,
    /// The Dockerfile: a path, - (standard input), or an address (default: Dockerfile in the context)
    #[arg(long, short = 'f', visible_alias = "file", value_name = "FILE")]
    pub(crate) dockerfile: Option<String>,
    /// The Dockerfile as a text
    #[arg(long, value_name = "TEXT", conflicts_with = "dockerfile")]
    pub(crate) dockerfile_inline: Option<String>,
    /// Build context, the same as the argument
    #[arg(long, value_name = "DIR", conflicts_with = "path")]
    pub(crate) context: Option<String>,
    /// Name of the result: org/name:version
    #[arg(long, short = 't', value_name = "NAME:TAG")]
    pub(crate) tag: Vec<String>,
    /// Value of a build argument; without =VALUE it is taken from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Stage to build (default: the last one)
    #[arg(long, visible_alias = "dockerfile-stage", value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// What to leave: type=ext4|erofs|initrd|oci|docker|image|tar|local|cacheonly,dest=PATH,... (see below)
    #[arg(long, short = 'o', value_name = "SPEC")]
    pub(crate) output: Vec<String>,
    /// Push the result to the registries of its tags: the same as --output type=image,push=true
    #[arg(long)]
    pub(crate) push: bool,
    /// Put the result into the image store under its tags, which is what a build without --output does; there is no
    /// Docker daemon to load it into (for one: --output type=docker | docker load)
    #[arg(long)]
    pub(crate) load: bool,
    /// Take this image instead of a Dockerfile
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["dockerfile", "dockerfile_inline", "path", "context"])]
    pub(crate) docker_image: Option<String>,
    /// What that image was made from: recorded; no base is needed
    #[arg(long, value_name = "IMAGE", requires = "docker_image", hide = true)]
    pub(crate) docker_image_base: Option<String>,
    /// Shell command before the first instruction of the target stage: as root, in /, like a RUN step
    #[arg(long, value_name = "COMMAND")]
    pub(crate) pre_build_command: Vec<String>,
    /// The same behind its last instruction
    #[arg(long, value_name = "COMMAND")]
    pub(crate) post_build_command: Vec<String>,
    /// Named context: NAME=DIR, an archive, docker-image://REF, oci-layout://PATH with :TAG or @DIGEST, or an address
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_context: Vec<String>,
    /// Secret for RUN --mount=type=secret: id=NAME[,src=FILE|,env=VARIABLE]
    #[arg(long, value_name = "SPEC")]
    pub(crate) secret: Vec<String>,
    /// SSH agent for RUN --mount=type=ssh: default or NAME=SOCKET
    #[arg(long, value_name = "SPEC")]
    pub(crate) ssh: Vec<String>,
    /// Execute every step again; with a value, those of the named stages
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "", value_name = "STAGES")]
    pub(crate) no_cache: Option<String>,
    /// Execute the steps of these stages again
    #[arg(long, value_name = "STAGES", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Take step results from there, too: REF, type=registry,ref=REF or type=local,src=DIR
    #[arg(long, value_name = "SPEC")]
    pub(crate) cache_from: Vec<String>,
    /// Give step results away: REF, type=registry,ref=REF, type=local,dest=DIR or type=inline; mode=max for all stages
    #[arg(long, value_name = "SPEC")]
    pub(crate) cache_to: Vec<String>,
    /// Look for newer base images even when the store has them
    #[arg(long)]
    pub(crate) pull: bool,
    /// Platform of the result: os/arch[/variant] (default: the host's)
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Network of RUN steps: default (their own, without the host's loopback), none or host
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub(crate) network: String,
    /// What the Dockerfile may ask for: network.host, security.insecure
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(crate) allow: Vec<String>,
    /// Line of /etc/hosts in RUN steps
    #[arg(long, value_name = "NAME=ADDRESS")]
    pub(crate) add_host: Vec<String>,
    /// Label of the result; later ones win
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Size of the ext4 image at least, e.g. 4G (default: what the content needs)
    #[arg(long, value_name = "SIZE", conflicts_with = "filesystem_size_mbs")]
    pub(crate) size: Option<String>,
    /// Size of the ext4 image at least, in MiB
    #[arg(long, value_name = "MIB")]
    pub(crate) filesystem_size_mbs: Option<u64>,
    /// End only when the image is on the disk, so that a power cut right afterwards cannot take it
    #[arg(long)]
    pub(crate) sync: bool,
    /// How to report progress
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto, env = "BUILDKIT_PROGRESS")]
    pub(crate) progress: ProgressMode,
    /// Write a picture of where the time went, for a browser; also when the build fails
    #[arg(long, value_name = "FILE.html")]
    pub(crate) timeline: Option<PathBuf>,
    /// Check the Dockerfile instead of building it (exit code 1 when there is anything to say)
    #[arg(long, conflicts_with_all = ["call", "print"])]
    pub(crate) check: bool,
    /// What to do with the Dockerfile: build, check, outline (what may be given to the target) or targets
    #[arg(long, value_name = "WHAT[,format=json]", conflicts_with = "print")]
    pub(crate) call: Option<String>,
    /// Form of what --check and --call print
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<CallFormat>,
    /// Print the image's digest and nothing else
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
    /// Print the graph instead of building
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) print: Option<PrintGraph>,
    /// Write the image ID, the digest of its configuration, into a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what came of the build into a file, as JSON: digests, descriptor, names, outputs
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) isolation: IsolationArgs,
    #[command(flatten)]
    pub(crate) build_vm: BuildVm,
    #[command(flatten)]
    pub(crate) docker: Docker,
}

/// Flags of `docker build` that scripts give and that change nothing here.
#[derive(Args, Clone, Debug)]
pub(crate) struct Docker {
    /// No statement about how the image was made is written
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    pub(crate) provenance: Option<String>,
    /// No list of what the image holds is written
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    pub(crate) sbom: Option<String>,
    /// The same
    #[arg(long, value_name = "SPEC", hide = true)]
    pub(crate) attest: Vec<String>,
    /// Containers of steps are removed always
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL", hide = true)]
    pub(crate) rm: Option<bool>,
    /// The same
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL", hide = true)]
    pub(crate) force_rm: Option<bool>,
}

impl Docker {
    /// The flags that were given and ask for something that is not done.
    pub(crate) fn unmet(&self) -> Vec<&'static str> {
        let asks = |spec: &Option<String>| {
            let spec = spec.as_deref();
            spec.is_some_and(|spec| !matches!(spec, "false" | "0" | "disabled=true"))
        };
        let mut names = Vec::new();
        if asks(&self.provenance) {
            names.push("--provenance");
        }
        if asks(&self.sbom) {
            names.push("--sbom");
        }
        if self
            .attest
            .iter()
            .any(|spec| !spec.contains("disabled=true"))
        {
            names.push("--attest");
        }
        names
    }
}

/// Flags of the build's VM, with the names of the original: mentioned once where they change nothing.
#[derive(Args, Clone, Debug)]
#[command(
    next_help_heading = "Build VM (of --isolation=microvm; some are kept for scripts of the original)"
)]
pub(crate) struct BuildVm {
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) cni: Cni,
    #[command(flatten)]
    pub(crate) jailer: Jailer,
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
    #[command(flatten)]
    pub(crate) storage: Storage,
    #[command(flatten)]
    pub(crate) tracing: Tracing,
    /// RSA bits of the build's certificates
    #[arg(long, value_name = "BITS")]
    pub(crate) bootstrap_certs_key_size: Option<u32>,
    /// How long the build's certificates hold
    #[arg(long, value_name = "DURATION")]
    pub(crate) bootstrap_certs_validity: Option<String>,
    /// How long to wait for the build VM
    #[arg(long, value_name = "DURATION")]
    pub(crate) bootstrap_initial_communication_timeout: Option<String>,
    /// Interface that the build server binds
    #[arg(long, value_name = "NAME")]
    pub(crate) bootstrap_server_bind_interface: Option<String>,
}

impl BuildVm {
    /// The flags that were given and that the VM of a build has no use for.
    pub(crate) fn unused_by_microvm(&self) -> Vec<&'static str> {
        let used = self.machine.unused_by_run();
        let machine = self.machine.given();
        self.unused()
            .into_iter()
            // A build's VM has no address of its own.
            .filter(|name| {
                !machine.contains(name) || used.contains(name) || *name == "--ip-address"
            })
            .collect()
    }

    /// The flags that were given and that a build in the sandbox has no use for.
    pub(crate) fn unused(&self) -> Vec<&'static str> {
        let mut names = self.machine.given();
        names.extend(self.cni.given());
        names.extend(self.jailer.given());
        names.extend(self.run_cache.given());
        names.extend(self.tracing.given());
        for (name, given) in [
            (
                "--bootstrap-certs-key-size",
                self.bootstrap_certs_key_size.is_some(),
            ),
            (
                "--bootstrap-certs-validity",
                self.bootstrap_certs_validity.is_some(),
            ),
            (
                "--bootstrap-initial-communication-timeout",
                self.bootstrap_initial_communication_timeout.is_some(),
            ),
            (
                "--bootstrap-server-bind-interface",
                self.bootstrap_server_bind_interface.is_some(),
            ),
        ] {
            if given {
                names.push(name);
            }
        }
        names
    }
}

/// How progress is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A live view on a terminal, plain lines elsewhere
    Auto,
    /// Lines
    Plain,
    /// The live view
    Tty,
    /// One JSON object per line, on standard error
    #[value(alias = "rawjson")]
    Json,
    /// Nothing
    #[value(alias = "none")]
    Quiet,
}

/// Form of what is told of a Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CallFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// `--print` of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrintGraph {
    /// The graph of what would be computed
    Graph,
}

/// `firebuild baseos`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild baseos --bootstrap debian:bookworm\n  \
    firebuild baseos --bootstrap debian:bookworm --full --tag me/debian:full\n  \
    firebuild baseos --dockerfile base/Dockerfile --tag me/base:1")]
pub(crate) struct BaseosArgs {
    /// Distribution and release to install from packages: debian:bookworm
    #[arg(
        long,
        value_name = "DISTRO:SUITE",
        required_unless_present = "dockerfile"
    )]
    pub(crate) bootstrap: Option<String>,
    /// Build the base from this Dockerfile
    #[arg(long, short = 'f', value_name = "FILE", conflicts_with = "bootstrap")]
    pub(crate) dockerfile: Option<String>,
    /// Name of the result (default: what was bootstrapped, or the FROM of the Dockerfile)
    #[arg(long, short = 't', value_name = "NAME:TAG")]
    pub(crate) tag: Option<String>,
    /// Package mirror (default: from the host's apt configuration)
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: Option<String>,
    /// Add what makes a multi-user system: init, openssh, sudo, an account
    #[arg(long)]
    pub(crate) full: bool,
    /// Further packages
    #[arg(long, value_name = "PACKAGE", value_delimiter = ',')]
    pub(crate) include: Vec<String>,
    /// Size of the ext4 image at least, in MiB
    #[arg(long, value_name = "MIB")]
    pub(crate) filesystem_size_mbs: Option<u64>,
    /// How to report progress
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto)]
    pub(crate) progress: ProgressMode,
    #[command(flatten)]
    pub(crate) storage: Storage,
    #[command(flatten)]
    pub(crate) tracing: Tracing,
}
