//! RUN.

use std::collections::HashMap;

use firebuild_dockerfile::{
    Mount, NetworkMode as Network, Run, Script, SecurityMode as Security, expand_shown,
};
use firebuild_oci::Platform;

use super::config::DEFAULT_SHELL;
use super::stage::Stepper;
use super::text::heredoc_summary;
use super::{DEFAULT_HOSTNAME, LowerError, LowerErrorKind};
use crate::graph::{ExecOp, InlineFile, NetworkMode, Op, SecurityMode};

/// Where a heredoc that is a program appears.
const SCRIPT_DIR: &str = "/dev/pipes";

/// Variables that every step gets from build arguments without a declaration, in both cases of letters.
const PROXIES: [&str; 5] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

impl Stepper<'_, '_> {
    pub(super) fn run(&mut self, run: &Run) -> Result<(), LowerError> {
        if let Some(device) = run.devices.iter().find(|device| device.required) {
            let message = format!("RUN --device={} is not supported", device.name);
            return Err(LowerError::new(LowerErrorKind::Value, message).at(device.span));
        }
        self.check_executable()?;
        let (network, security) = self.entitled(run)?;
        let mut shown = self.shown();
        let mut files = Vec::new();
        let argv = match run.script() {
            Script::Exec(words) => words.iter().map(|word| word.text.clone()).collect(),
            Script::Shell(text) => self.shell_argv(&text),
            Script::File { name, content } => {
                let path = script_path(name).ok_or_else(|| {
                    let message = format!("{name:?} cannot be the name of a script");
                    self.wrong(LowerErrorKind::Value, message)
                })?;
                let argv = self.shell_argv(&path);
                files.push(InlineFile {
                    path,
                    data: content.into_owned().into_bytes(),
                    mode: 0o755,
                });
                argv
            }
        };
        if let [heredoc] = run.heredocs.as_slice() {
            shown += &format!(" ({})", heredoc_summary(&heredoc.body));
        }
        // Each step has an environment of its own, so many steps with a large one add up.
        self.output.bytes += self.env.bytes();
        let mut inputs = vec![self.vertex];
        let mounts = self.mounts(&run.mounts, &mut inputs)?;
        let hostname = self.plan.build_args.get("BUILDKIT_SANDBOX_HOSTNAME");
        let op = ExecOp {
            argv: argv.clone(),
            env: self.env.to_vec(),
            proxy_env: self.proxy_env(),
            cwd: self.directory().to_owned(),
            user: self.config.config.user.clone(),
            hostname: hostname.map_or(DEFAULT_HOSTNAME, String::as_str).to_owned(),
            network,
            security,
            extra_hosts: self.plan.options.extra_hosts.clone(),
            mounts,
            files,
        };
        let shown = self.shown_run(&shown, run);
        let name = self.named(&shown);
        self.vertex = self.push(Op::Exec(op), inputs, name);
        let text = format!("RUN {}{} # buildkit", self.args_prefix(), argv.join(" "));
        self.commit(text, true);
        Ok(())
    }

    /// The text of a RUN with the variables that the build knows; those that hold secrets show as stars.
    fn shown_run(&self, text: &str, run: &Run) -> String {
        let secrets: Vec<&str> = run
            .mounts
            .iter()
            .filter_map(Mount::secret_variable)
            .collect();
        expand_shown(text, self.plan.file.escape(), |name| {
            if secrets.contains(&name) {
                Some("****")
            } else {
                self.env.get(name)
            }
        })
        .unwrap_or_else(|_| text.to_owned())
    }

    /// RUN executes programs of the image on this machine, so the machine must know their platform.
    fn check_executable(&self) -> Result<(), LowerError> {
        let Some(executable) = &self.plan.options.executable else {
            return Ok(());
        };
        let wanted = self.platform.normalised();
        let same =
            |known: &Platform| known.os == wanted.os && known.architecture == wanted.architecture;
        if executable.iter().any(same) {
            return Ok(());
        }
        let build = &self.plan.options.build_platform;
        let message = format!(
            "cannot execute RUN for {wanted} on {build}: programs of the image would not start here"
        );
        let hint = format!(
            "register an emulator for {} with binfmt_misc (Debian: qemu-user-static), or give the stage --platform=$BUILDPLATFORM",
            wanted.architecture
        );
        Err(self
            .wrong(LowerErrorKind::Platform, message)
            .with_hint(hint))
    }

    /// What a step asks of network and security, if the caller allows it.
    fn entitled(&self, run: &Run) -> Result<(NetworkMode, SecurityMode), LowerError> {
        let options = self.plan.options;
        let not_allowed = |name: &str| {
            let hint = format!("allow it with --allow {name}, if you trust this Dockerfile");
            self.wrong(
                LowerErrorKind::Entitlement,
                format!("{name} is not allowed"),
            )
            .with_hint(hint)
        };
        let network = match run.network {
            Network::Default => options.network,
            Network::None => NetworkMode::None,
            Network::Host if options.allow.network_host => NetworkMode::Host,
            Network::Host => return Err(not_allowed("network.host")),
        };
        let security = match run.security {
            Security::Sandbox => SecurityMode::Sandbox,
            Security::Insecure if options.allow.security_insecure => SecurityMode::Insecure,
            Security::Insecure => return Err(not_allowed("security.insecure")),
        };
        Ok((network, security))
    }

    /// Commands of the caller: shell commands as root in `/`, recorded like RUN.
    pub(super) fn extra_commands(&mut self, is_target: bool, commands: &[String]) {
        for command in commands.iter().filter(|_| is_target) {
            let argv = DEFAULT_SHELL
                .iter()
                .copied()
                .chain([command.as_str()])
                .map(str::to_owned);
            let argv: Vec<String> = argv.collect();
            let hostname = self.plan.build_args.get("BUILDKIT_SANDBOX_HOSTNAME");
            let op = ExecOp {
                argv: argv.clone(),
                env: self.env.to_vec(),
                proxy_env: self.proxy_env(),
                cwd: "/".to_owned(),
                hostname: hostname.map_or(DEFAULT_HOSTNAME, String::as_str).to_owned(),
                user: String::new(),
                network: self.plan.options.network,
                security: SecurityMode::Sandbox,
                extra_hosts: self.plan.options.extra_hosts.clone(),
                mounts: Vec::new(),
                files: Vec::new(),
            };
            let name = self.named(&format!("RUN {command}"));
            let below = self.vertex;
            self.vertex = self.push(Op::Exec(op), vec![below], name);
            let text = format!("RUN {}{} # buildkit", self.args_prefix(), argv.join(" "));
            self.commit(text, true);
        }
    }

    /// `|2 a=1 b=2 `, when the stage has arguments: their values as steps see them now.
    fn args_prefix(&self) -> String {
        // Each name once, at its first place, with its last value.
        let mut last: HashMap<&str, &str> = HashMap::with_capacity(self.args.len());
        for (name, value) in &self.args {
            last.insert(name, value.as_deref().unwrap_or_default());
        }
        let count = last.len();
        let mut shown = String::new();
        for (name, _) in &self.args {
            if let Some(value) = last.remove(name.as_str()) {
                shown += &format!("{name}={} ", self.env.get(name).unwrap_or(value));
            }
        }
        if count == 0 {
            return shown;
        }
        format!("|{count} {shown}")
    }

    fn proxy_env(&self) -> Vec<(String, String)> {
        let mut env = Vec::new();
        for name in PROXIES {
            // Of several spellings the last in order counts, which is the lower-case one.
            let given = self
                .plan
                .build_args
                .iter()
                .rfind(|(key, _)| key.eq_ignore_ascii_case(name));
            if let Some((_, value)) = given {
                env.push((name.to_owned(), value.clone()));
                env.push((name.to_lowercase(), value.clone()));
            }
        }
        env
    }
}

/// The place of a script; `None` when the name is not one of a file.
fn script_path(name: &str) -> Option<String> {
    let plain = !name.contains('/') && !name.contains('\0') && !matches!(name, "" | "." | "..");
    plain.then(|| format!("{SCRIPT_DIR}/{name}"))
}
