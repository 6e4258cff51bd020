//! The program `git`, with a configuration that is wholly ours.
//!
//! - No file of the user or the system configures it: no helpers, hooks, filters, templates, aliases.
//! - It asks nobody: no prompt, no askpass program.
//! - Protocols are those of the kinds of addresses that we know; `ext::` and local paths are none of them.
//! - Addresses and credentials go through its environment, never its arguments, which every user of the machine can read.
//! - It leads a process group of its own, which is ended when the build is stopped, when it is silent for too long while it
//!   talks to a server, or when it takes too long.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::super::http::{authority, redacted};
use super::{Failed, Remote, RemoteError};

/// How long git may clean up after it was told to stop.
const GRACE: Duration = Duration::from_secs(1);
/// What is kept of git's output.
const MAX_OUTPUT: usize = 64 << 20;
/// What is kept of its messages, and how much of it is shown.
const MAX_MESSAGES: usize = 16 << 10;
const SHOWN_LINES: usize = 4;
/// How often its silence is looked at.
const LOOK: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Git for one address.
pub(super) struct Git<'a> {
    remote: &'a Remote<'a>,
    url: String,
    /// Configuration, for the environment.
    config: Vec<(String, String)>,
    ssh: OsString,
    agent: Option<OsString>,
    is_ssh: bool,
}

impl<'a> Git<'a> {
    pub(super) fn new(remote: &'a Remote<'a>, address: &str) -> Result<Self, RemoteError> {
        let is_http = address.starts_with("http://") || address.starts_with("https://");
        let scheme = address.split_once("://").map(|(scheme, _)| scheme);
        let is_ssh = scheme.is_none_or(|scheme| scheme.eq_ignore_ascii_case("ssh"));
        let url = if is_http {
            redacted(address)
        } else {
            address.to_owned()
        };
        let mut git = Self {
            remote,
            url,
            config: Vec::new(),
            ssh: OsString::new(),
            agent: None,
            is_ssh,
        };
        git.configure(address, is_http);
        if is_ssh {
            git.agent = remote.ssh.get("default").map(|path| path.clone().into());
            git.ssh = ssh_command(remote.store.root(), git.agent.is_some())?;
        }
        Ok(git)
    }

    /// The address, without credentials where it can have them.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    fn configure(&mut self, address: &str, is_http: bool) {
        for (key, value) in [
            ("safe.directory", "*"),
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.symlinks", "true"),
            ("core.fileMode", "true"),
            ("credential.helper", ""),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("advice.detachedHead", "false"),
            ("init.defaultBranch", "main"),
            ("fetch.recurseSubmodules", "false"),
            ("protocol.version", "2"),
        ] {
            self.config.push((key.to_owned(), value.to_owned()));
        }
        self.config
            .push(("remote.source.url".to_owned(), self.url.clone()));
        if !is_http {
            return;
        }
        if let Some(value) = self.authorization(address) {
            let (scheme, _) = address.split_once("://").unwrap_or(("https", ""));
            let key = format!("http.{scheme}://{}/.extraHeader", authority(address));
            self.config.push((key, format!("Authorization: {value}")));
        }
    }

    /// BuildKit's secrets for git servers, else `user:password@` of the address.
    fn authorization(&self, address: &str) -> Option<String> {
        let host = authority(address);
        let names = |name: &str| vec![format!("{name}.{host}"), name.to_owned()];
        if let Some(header) = self.remote.secret(&names("GIT_AUTH_HEADER")) {
            return Some(header);
        }
        let pair = match self.remote.secret(&names("GIT_AUTH_TOKEN")) {
            Some(token) => format!("x-access-token:{token}"),
            None => user_info(address)?,
        };
        Some(format!(
            "Basic {}",
            firebuild_oci::registry::base64(pair.as_bytes())
        ))
    }

    /// Git in a directory; without one for commands that need no repository.
    pub(super) fn at<'g>(&'g self, dir: Option<&'g Path>) -> Run<'g> {
        Run {
            git: self,
            dir,
            files: false,
        }
    }

    fn command(&self, run: &Run<'_>, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.args(args).env_clear();
        command.current_dir(run.dir.unwrap_or(Path::new("/")));
        for name in [
            "PATH",
            "http_proxy",
            "https_proxy",
            "HTTPS_PROXY",
            "all_proxy",
            "ALL_PROXY",
            "no_proxy",
            "NO_PROXY",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "TMPDIR",
        ] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", "/nonexistent")
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            .env("GIT_LITERAL_PATHSPECS", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env(
                "GIT_ALLOW_PROTOCOL",
                if run.files {
                    "http:https:git:ssh:file"
                } else {
                    "http:https:git:ssh"
                },
            )
            .env("GIT_CONFIG_COUNT", self.config.len().to_string());
        for (index, (key, value)) in self.config.iter().enumerate() {
            command
                .env(format!("GIT_CONFIG_KEY_{index}"), key)
                .env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        if self.is_ssh {
            command
                .env("GIT_SSH_COMMAND", &self.ssh)
                .env("GIT_SSH_VARIANT", "ssh");
            if let Some(agent) = &self.agent {
                command.env("SSH_AUTH_SOCK", agent);
            }
        } else {
            // A submodule may lead to another server; nobody's keys are used there.
            command.env("GIT_SSH_COMMAND", "/bin/false");
        }
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// What a failure means, with what git says about it.
    fn failed(&self, messages: &[u8]) -> RemoteError {
        let text = String::from_utf8_lossy(messages);
        let said: Vec<&str> = text
            .split(['\n', '\r'])
            .map(str::trim)
            .filter(|line| {
                !line.is_empty()
                    && !line.starts_with("Receiving ")
                    && !line.starts_with("remote: Counting")
            })
            .collect();
        let said = said[said.len().saturating_sub(SHOWN_LINES)..].join("; ");
        let said: String = said
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let error = RemoteError::new(
            Failed::Git,
            format!("cannot fetch {}: git says: {said}", self.url),
        );
        if said.contains("could not read Username") || said.contains("Authentication failed") {
            return error.hint(
                "a private repository needs --secret id=GIT_AUTH_TOKEN,env=VARIABLE, or an ssh:// address and --ssh default",
            );
        }
        if self.is_ssh && self.agent.is_none() && said.contains("Permission denied") {
            return error.hint("--ssh default hands your SSH agent on to git");
        }
        if said.contains("Host key verification failed") {
            return error
                .hint("the key of the server is not the one that is known; see ssh-keygen -R");
        }
        error
    }
}

/// Git in one place.
#[derive(Clone, Copy)]
pub(super) struct Run<'g> {
    git: &'g Git<'g>,
    dir: Option<&'g Path>,
    /// Whether repositories of this machine may be fetched from.
    files: bool,
}

impl Run<'_> {
    /// The same, with leave to fetch from a repository of this machine.
    pub(super) fn with_files(mut self) -> Self {
        self.files = true;
        self
    }

    /// A command that talks to a server.
    pub(super) fn server(self, args: &[&str]) -> Result<Vec<u8>, RemoteError> {
        self.collect(args, true)
    }

    /// A command that does not.
    pub(super) fn local(self, args: &[&str]) -> Result<Vec<u8>, RemoteError> {
        self.collect(args, false)
    }

    /// Whether a command succeeds.
    pub(super) fn succeeds(self, args: &[&str]) -> Result<bool, RemoteError> {
        let (success, _) = self.execute(args, false, &mut |_| Ok(()))?;
        Ok(success)
    }

    fn collect(self, args: &[&str], server: bool) -> Result<Vec<u8>, RemoteError> {
        let mut output = Vec::new();
        self.each(args, server, &mut |bytes| {
            if output.len() + bytes.len() > MAX_OUTPUT {
                return Err(RemoteError::new(
                    Failed::TooLarge,
                    format!(
                        "git says more than {MAX_OUTPUT} bytes about {}",
                        self.git.url
                    ),
                ));
            }
            output.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(output)
    }

    /// Hands the output on as it comes; an error from there ends the command.
    pub(super) fn each(
        self,
        args: &[&str],
        server: bool,
        take: &mut dyn FnMut(&[u8]) -> Result<(), RemoteError>,
    ) -> Result<(), RemoteError> {
        let (success, messages) = self.execute(args, server, take)?;
        if success {
            Ok(())
        } else {
            Err(self.git.failed(&messages))
        }
    }

    fn execute(
        self,
        args: &[&str],
        server: bool,
        take: &mut dyn FnMut(&[u8]) -> Result<(), RemoteError>,
    ) -> Result<(bool, Vec<u8>), RemoteError> {
        self.git.remote.check_cancel()?;
        let mut child = self.git.command(&self, args).spawn().map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                RemoteError::new(
                    Failed::Git,
                    "git is needed for git sources and is not installed",
                )
                .hint("install it, e.g. with apt-get install git")
            } else {
                RemoteError::caused(Failed::Git, "cannot start git", error)
            }
        })?;
        let watched = self.watch(&mut child, server, take);
        if watched.is_err() {
            end(&mut child);
        }
        let messages = watched?;
        let status = child
            .wait()
            .map_err(|error| RemoteError::caused(Failed::Git, "cannot wait for git", error))?;
        Ok((status.success(), messages))
    }

    /// Reads both outputs to their ends; gives the last messages.
    fn watch(
        self,
        child: &mut Child,
        server: bool,
        take: &mut dyn FnMut(&[u8]) -> Result<(), RemoteError>,
    ) -> Result<Vec<u8>, RemoteError> {
        let failed =
            |error: io::Error| RemoteError::caused(Failed::Git, "cannot read from git", error);
        let (limits, cancel) = (&self.git.remote.limits, self.git.remote.cancel);
        let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
        let mut messages: VecDeque<u8> = VecDeque::new();
        let mut buffer = vec![0; 64 << 10];
        let begin = Instant::now();
        let mut heard = begin;
        while stdout.is_some() || stderr.is_some() {
            let mut fds = vec![PollFd::from_borrowed_fd(cancel.as_fd(), PollFlags::IN)];
            fds.extend(
                stdout
                    .iter()
                    .map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)),
            );
            fds.extend(
                stderr
                    .iter()
                    .map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)),
            );
            match poll(&mut fds, Some(&LOOK)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
            let mut ready = fds[1..].iter().map(|fd| !fd.revents().is_empty());
            let out_ready = stdout.is_some() && ready.next() == Some(true);
            let err_ready = stderr.is_some() && ready.next() == Some(true);
            drop(fds);
            self.git.remote.check_cancel()?;
            if out_ready && let Some(pipe) = &mut stdout {
                let count = pipe.read(&mut buffer).map_err(failed)?;
                heard = Instant::now();
                if count == 0 {
                    stdout = None;
                } else {
                    take(&buffer[..count])?;
                }
            }
            if err_ready && let Some(pipe) = &mut stderr {
                let count = pipe.read(&mut buffer).map_err(failed)?;
                heard = Instant::now();
                if count == 0 {
                    stderr = None;
                }
                messages.extend(&buffer[..count]);
                let surplus = messages.len().saturating_sub(MAX_MESSAGES);
                messages.drain(..surplus);
            }
            if server && heard.elapsed() > limits.silence {
                return Err(self.given_up("fell silent", limits.silence));
            }
            if begin.elapsed() > limits.git {
                return Err(self.given_up("took too long", limits.git));
            }
        }
        Ok(messages.into())
    }

    fn given_up(self, what: &str, time: Duration) -> RemoteError {
        let message = format!(
            "cannot fetch {}: git {what} ({} s)",
            self.git.url,
            time.as_secs()
        );
        RemoteError::new(Failed::Server, message)
    }
}

/// Ends git and all that it started: politely, so that it takes its lock files away, then not.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(group) = group else { return };
    let _ = kill_process_group(group, Signal::TERM);
    let begin = Instant::now();
    while begin.elapsed() < GRACE && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Also when git itself is gone: what it started may not be. The group has its name as long as anybody is in it.
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
}

/// `user:password` of an address, as it stands there; nothing without a password.
fn user_info(address: &str) -> Option<String> {
    let (_, rest) = address.split_once("://")?;
    let authority = rest.split('/').next()?;
    let (info, _) = authority.rsplit_once('@')?;
    Some(firebuild_oci::registry::percent_decoded(info))
}

/// The `ssh` that git starts: no configuration, no questions, no keys but the agent's. A server that is seen for the first
/// time is believed and remembered in the store; one that the user or the store knows must have the key that is known.
fn ssh_command(store: &Path, agent: bool) -> Result<OsString, RemoteError> {
    let mut known = vec![store.join("git").join("known_hosts")];
    if let Some(home) = std::env::var_os("HOME") {
        known.push(Path::new(&home).join(".ssh/known_hosts"));
    }
    known.push("/etc/ssh/ssh_known_hosts".into());
    let mut files = Vec::new();
    for path in &known {
        // Such a name could not be told from an option's syntax.
        if let Some(text) = path.to_str()
            && !text.contains(['"', '\'', '%', '\\'])
        {
            files.push(format!("\"{text}\""));
        }
    }
    let _ = fs_err::create_dir_all(store.join("git"));
    let mut words = vec![
        "ssh -F /dev/null -a -x -T".to_owned(),
        "-o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UpdateHostKeys=no".to_owned(),
        "-o IdentityFile=none -o ConnectTimeout=15 -o ServerAliveInterval=10 -o ServerAliveCountMax=3".to_owned(),
        format!("-o 'UserKnownHostsFile={}' -o GlobalKnownHostsFile=none", files.join(" ")),
    ];
    if !agent {
        words.push("-o IdentityAgent=none".to_owned());
    }
    Ok(words.join(" ").into())
}

#[cfg(test)]
mod tests {
    use super::{ssh_command, user_info};
    use std::path::Path;

    #[test]
    fn credentials_of_addresses() {
        assert_eq!(user_info("https://u:p%40@h/a.git").as_deref(), Some("u:p@"));
        assert_eq!(user_info("https://h/a.git"), None);
        assert_eq!(user_info("https://token@h/a.git").as_deref(), Some("token"));
    }

    #[test]
    fn ssh_without_an_agent_uses_none() {
        let command = ssh_command(Path::new("/nonexistent/s"), false).unwrap();
        let text = command.to_str().unwrap();
        assert!(
            text.contains("IdentityAgent=none") && text.contains("-F /dev/null"),
            "{text}"
        );
        assert!(
            text.contains("UserKnownHostsFile=\"/nonexistent/s/git/known_hosts\""),
            "{text}"
        );
    }
}
