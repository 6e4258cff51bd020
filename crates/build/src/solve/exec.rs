//! RUN: the key of a step, and from a graph's mounts to an executor's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use firebuild_oci::Digest;

use super::clip::Clip;
use super::{SolveError, SolveErrorKind, Solver, Value, chain_of};
use crate::chain::Chain;
use crate::content::NoPaths;
use crate::content::Stored;
use crate::event::{Event, Stream};
use crate::exec::{ExecErrorKind, Executed, Exit, Step, StepMount, StepMountKind};
use crate::graph::{
    ExecOp, Mount, MountKind, NetworkMode, SecurityMode, Sharing, Vertex, VertexId,
};
use crate::key::{CacheKey, KeyWriter};

impl Solver<'_> {
    pub(crate) fn exec(
        &self,
        id: VertexId,
        vertex: &Vertex,
        exec: &ExecOp,
        given: &[Value],
    ) -> Result<(Value, bool), SolveError> {
        let below = chain_of(given, 0)?;
        let sources = self.mount_sources(exec, given)?;
        let key = key(exec, &below, &sources);
        self.cached(id, vertex, &key, &below, || {
            self.bring(sources.iter().flatten())?;
            let (step, locks) = self.step(exec, &sources)?;
            let mut pass = |stream: Stream, data: &[u8]| {
                (self.sink)(Event::Output {
                    id,
                    stream,
                    data: data.to_vec(),
                });
            };
            let mut clip = Clip::default();
            let mut output = |stream: Stream, data: &[u8]| clip.write(stream, data, &mut pass);
            let done = self
                .executor
                .run(&below, &step, &mut output, self.cancel)
                .map_err(failed)?;
            drop(locks);
            if done.status != Exit::Code(0) {
                clip.failed(&mut pass);
            }
            for notice in &done.notices {
                (self.sink)(Event::Notice {
                    message: notice.clone(),
                });
            }
            let layer = finished(exec, done)?;
            Ok(Stored {
                diff_id: layer.diff_id,
                layer: layer.layer,
            })
        })
    }

    /// The chains that bind mounts and seeds of caches show, by position of the input.
    fn mount_sources(
        &self,
        exec: &ExecOp,
        given: &[Value],
    ) -> Result<Vec<Option<Arc<Chain>>>, SolveError> {
        let mut sources: Vec<Option<Arc<Chain>>> = vec![None; given.len()];
        for mount in &exec.mounts {
            let input = match &mount.kind {
                MountKind::Bind { input, .. }
                | MountKind::Cache {
                    seed: Some((input, _)),
                    ..
                } => *input,
                _ => continue,
            };
            if sources.get(input).is_some_and(Option::is_none) {
                let chain = match given.get(input) {
                    Some(Value::Chain(chain)) => Arc::clone(chain),
                    Some(Value::Files(files)) => {
                        self.files_as_chain(&files.tree, files.as_ref())?
                    }
                    Some(Value::Tree(stored)) => self.files_as_chain(&stored.tree, &NoPaths)?,
                    None => {
                        return Err(SolveError::internal(
                            "a mount names an input that is not there",
                        ));
                    }
                };
                sources[input] = Some(chain);
            }
        }
        Ok(sources)
    }

    fn step(
        &self,
        exec: &ExecOp,
        sources: &[Option<Arc<Chain>>],
    ) -> Result<(Step, Vec<firebuild_store::KeyLock>), SolveError> {
        let mut step = Step {
            argv: exec.argv.clone(),
            env: exec.proxy_env.iter().chain(&exec.env).cloned().collect(),
            cwd: exec.cwd.clone(),
            user: exec.user.clone(),
            hostname: exec.hostname.clone(),
            extra_hosts: exec.extra_hosts.clone(),
            network: exec.network,
            security: exec.security,
            mounts: Vec::new(),
            files: exec.files.clone(),
        };
        let mut locks = Vec::new();
        for mount in &exec.mounts {
            if let Some(kind) = self.mount(mount, sources, &mut step, &mut locks)? {
                step.mounts.push(StepMount {
                    target: mount.target.clone(),
                    read_only: mount.read_only,
                    kind,
                });
            }
        }
        Ok((step, locks))
    }

    /// One mount for the executor; nothing for what is not there and need not be.
    fn mount(
        &self,
        mount: &Mount,
        sources: &[Option<Arc<Chain>>],
        step: &mut Step,
        locks: &mut Vec<firebuild_store::KeyLock>,
    ) -> Result<Option<StepMountKind>, SolveError> {
        let chain = |input: usize| {
            sources
                .get(input)
                .cloned()
                .flatten()
                .ok_or_else(|| SolveError::internal("a mount has no source"))
        };
        Ok(Some(match &mount.kind {
            MountKind::Bind { input, source } => StepMountKind::Bind {
                chain: chain(*input)?,
                source: source.clone(),
            },
            MountKind::Cache {
                id,
                sharing,
                seed,
                mode,
                uid,
                gid,
            } => {
                let seed = match seed {
                    Some((input, source)) => Some((chain(*input)?, source.clone())),
                    None => None,
                };
                let owner = (*mode, *uid, *gid);
                let directory = self.cache_directory(id, *sharing, seed.as_ref(), owner, locks)?;
                StepMountKind::Cache {
                    directory,
                    seed,
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                }
            }
            MountKind::Tmpfs { size } => StepMountKind::Tmpfs { size: *size },
            MountKind::Secret {
                id,
                required,
                mode,
                uid,
                gid,
            } => match self.secret(id, *required)? {
                Some(data) => StepMountKind::Secret {
                    data,
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                },
                None => return Ok(None),
            },
            MountKind::SecretEnv {
                id,
                required,
                variable,
            } => {
                // One that was not given, and need not be, is empty.
                let data = self.secret(id, *required)?.unwrap_or_default();
                let value = String::from_utf8(data).map_err(|_| {
                    SolveError::new(
                        SolveErrorKind::Executor,
                        format!("secret {id} is no text and cannot be a variable"),
                    )
                })?;
                step.env.push((variable.clone(), value));
                return Ok(None);
            }
            MountKind::Ssh {
                id,
                required,
                mode,
                uid,
                gid,
            } => match self.options.ssh.get(id) {
                Some(socket) => {
                    if !step.env.iter().any(|(name, _)| name == "SSH_AUTH_SOCK") {
                        step.env
                            .push(("SSH_AUTH_SOCK".to_owned(), mount.target.clone()));
                    }
                    StepMountKind::Ssh {
                        socket: socket.clone(),
                        mode: *mode,
                        uid: *uid,
                        gid: *gid,
                    }
                }
                None if *required => {
                    let error = SolveError::new(
                        SolveErrorKind::Executor,
                        format!("ssh agent {id} is required and was not given"),
                    );
                    return Err(error.hint(format!("give it with --ssh {id}")));
                }
                None => return Ok(None),
            },
        }))
    }

    fn secret(&self, id: &str, required: bool) -> Result<Option<Vec<u8>>, SolveError> {
        match self.options.secrets.get(id) {
            Some(secret) => Ok(Some(secret.0.clone())),
            None if required => {
                let error = SolveError::new(
                    SolveErrorKind::Executor,
                    format!("secret {id} is required and was not given: not found"),
                );
                Err(error.hint(format!(
                    "give it with --secret id={id},src=FILE or --secret id={id},env=VARIABLE"
                )))
            }
            None => Ok(None),
        }
    }

    /// The directory of a cache mount, locked as its sharing mode asks. Its identity is the id, what seeds it, and
    /// whose it is: mode, user and group.
    fn cache_directory(
        &self,
        id: &str,
        sharing: Sharing,
        seed: Option<&(Arc<Chain>, String)>,
        owner: (u32, u32, u32),
        locks: &mut Vec<firebuild_store::KeyLock>,
    ) -> Result<PathBuf, SolveError> {
        let mut name = KeyWriter::new("cache-mount/1");
        name.text(id);
        if let Some((chain, source)) = seed {
            name.digest(chain.id()).text(source);
        }
        // What a cache begins as is a part of what it is, as with BuildKit: one with an owner is another one.
        if owner != (0o755, 0, 0) {
            let (mode, uid, gid) = owner;
            name.number(u64::from(mode))
                .number(u64::from(uid))
                .number(u64::from(gid));
        }
        let name = name.finish();
        let stop = || self.cancel.is_raised();
        for copy in 0_u32.. {
            let lock_name = format!("mount-{name}-{copy}");
            let lock = match sharing {
                Sharing::Shared => None,
                Sharing::Locked => Some(
                    self.store
                        .lock(&lock_name, &stop)?
                        .ok_or_else(SolveError::cancelled)?,
                ),
                Sharing::Private => match self.store.try_lock(&lock_name)? {
                    Some(lock) => Some(lock),
                    None => continue,
                },
            };
            locks.extend(lock);
            let directory = self
                .store
                .root()
                .join("mounts")
                .join(format!("{name}-{copy}"));
            self.store.hold_dir(&directory).map_err(|error| {
                SolveError::caused(
                    SolveErrorKind::Store,
                    "cannot make the directory of a cache mount",
                    error,
                )
            })?;
            note_id(&directory, id);
            return Ok(directory);
        }
        Err(SolveError::internal("no private cache directory is free"))
    }
}

/// Writes down what people call a cache, beside its files. A hint, which may fail.
fn note_id(directory: &Path, id: &str) {
    let note = directory.join(firebuild_store::MOUNT_ID);
    if !note.exists() {
        let _ = fs_err::write(note, id);
    }
}

/// What a step is called before it runs. `docs/formats/cache-key.md` says what is in it and what is not.
fn key(exec: &ExecOp, below: &Chain, sources: &[Option<Arc<Chain>>]) -> CacheKey {
    let mut key = KeyWriter::new("exec/1");
    key.digest(below.id());
    key.list(exec.argv.iter().map(String::as_str));
    key.number(exec.env.len() as u64);
    for (name, value) in &exec.env {
        key.text(name).text(value);
    }
    key.text(&exec.cwd).text(&exec.user).text(&exec.hostname);
    key.number(match exec.network {
        NetworkMode::Default => 0,
        NetworkMode::None => 1,
        NetworkMode::Host => 2,
    });
    key.flag(exec.security == SecurityMode::Insecure);
    key.number(exec.files.len() as u64);
    for file in &exec.files {
        key.text(&file.path)
            .bytes(&file.data)
            .number(u64::from(file.mode));
    }
    key.number(exec.mounts.len() as u64);
    let content = |input: usize| {
        sources
            .get(input)
            .cloned()
            .flatten()
            .map_or(Digest::of(b""), |chain| *chain.id())
    };
    for mount in &exec.mounts {
        key.text(&mount.target).flag(mount.read_only);
        match &mount.kind {
            MountKind::Bind { input, source } => {
                key.number(1).digest(&content(*input)).text(source)
            }
            // The content of a cache counts for nothing; that there is one does.
            MountKind::Cache { .. } => key.number(2),
            MountKind::Tmpfs { size } => key.number(3).number(size.unwrap_or(0)),
            MountKind::Secret {
                id, mode, uid, gid, ..
            } => key
                .number(4)
                .text(id)
                .number(u64::from(*mode))
                .number(u64::from(*uid))
                .number(u64::from(*gid)),
            MountKind::SecretEnv { id, variable, .. } => key.number(5).text(id).text(variable),
            MountKind::Ssh { id, .. } => key.number(6).text(id),
        };
    }
    // Last and only when there are some, so that keys without them stay what they were.
    for (address, name) in &exec.extra_hosts {
        key.text("host").text(address).text(name);
    }
    key.finish()
}

fn failed(error: crate::exec::ExecError) -> SolveError {
    let kind = match error.kind() {
        ExecErrorKind::Cancelled => return SolveError::cancelled(),
        ExecErrorKind::NoSpace => SolveErrorKind::NoSpace,
        _ => SolveErrorKind::Executor,
    };
    let hint = error.hint().map(str::to_owned);
    let result = SolveError::caused(kind, "cannot run the step", error);
    match hint {
        Some(hint) => result.hint(hint),
        None => result,
    }
}

fn finished(exec: &ExecOp, done: Executed) -> Result<crate::exec::NewLayer, SolveError> {
    let words = exec.argv.join(" ");
    let how = match (&done.status, done.layer) {
        (Exit::Code(0), Some(layer)) => return Ok(layer),
        (Exit::Code(0), None) => {
            return Err(SolveError::internal("a step succeeded and gave no layer"));
        }
        (Exit::Code(code), _) => format!("exit code: {code}"),
        (Exit::Signal(signal), _) => format!("signal: {signal}"),
    };
    let error = SolveError::new(
        SolveErrorKind::Step,
        format!("process {words:?} did not complete successfully: {how}"),
    );
    Err(match done.hint {
        Some(hint) => error.hint(hint),
        None => error,
    })
}
