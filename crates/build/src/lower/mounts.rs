//! `RUN --mount`.

use firebuild_dockerfile::{
    Mount as MountFlag, MountSharing, MountType, ResolvedMount, Span, Word,
};

use super::plan::Origin;
use super::reach::{Source, find_source};
use super::stage::{Stepper, join_dir};
use super::{LowerError, LowerErrorKind};
use crate::graph::{Mount, MountKind, Sharing, VertexId};

impl Stepper<'_, '_> {
    /// The mounts of a RUN, in order; what they show is added to the inputs.
    pub(super) fn mounts(
        &mut self,
        flags: &[MountFlag],
        inputs: &mut Vec<VertexId>,
    ) -> Result<Vec<Mount>, LowerError> {
        let mut mounts = Vec::with_capacity(flags.len());
        let mut agents = 0;
        for flag in flags {
            let resolved = flag
                .resolve(|value| self.expand(&Word::new(value, flag.span)))?
                .map_err(|error| mount_error(error.to_string()).at(flag.span))?;
            match resolved.kind {
                MountType::Bind => mounts.push(self.bind(&resolved, flag, inputs)?),
                MountType::Cache => mounts.push(self.cache(&resolved, flag, inputs)?),
                MountType::Tmpfs => {
                    let size = (resolved.size > 0).then_some(resolved.size);
                    mounts.push(Mount {
                        target: self
                            .target(&resolved.target)
                            .map_err(|error| error.at(flag.span))?,
                        read_only: resolved.read_only,
                        kind: MountKind::Tmpfs { size },
                    });
                }
                MountType::Secret => self
                    .secret(&resolved, flag.span, &mut mounts)
                    .map_err(|error| error.at(flag.span))?,
                MountType::Ssh => {
                    mounts.push(
                        self.ssh(&resolved, flag.span, agents)
                            .map_err(|error| error.at(flag.span))?,
                    );
                    agents += 1;
                }
            }
        }
        Ok(mounts)
    }

    /// An absolute place; relative ones are below the working directory.
    fn target(&self, target: &str) -> Result<String, LowerError> {
        let target = join_dir(self.directory(), target);
        if target == "/" {
            return Err(mount_error(format!("invalid mount target {target:?}")));
        }
        Ok(target)
    }

    /// The position of what `from` names among the inputs.
    fn mount_input(
        &mut self,
        word: Option<&Word>,
        inputs: &mut Vec<VertexId>,
    ) -> Result<usize, LowerError> {
        let vertex = match word {
            None if self.plan.options.beside.is_some() => {
                return Err(mount_error(
                    "a Dockerfile from an address has no build context to mount",
                ));
            }
            None => self.context(""),
            Some(word) => match find_source(self.plan, word, false, &self.plan.platform)? {
                Source::Stage(index) => {
                    let stage = self.output.stages[index].as_ref();
                    stage
                        .expect("a source stands above its user and is needed whenever the user is")
                        .vertex
                }
                Source::Other(Origin::Scratch) => self.scratch(),
                Source::Other(Origin::Files(name)) => self.context(&name),
                Source::Other(Origin::Image(request)) => self.image(&request, false),
            },
        };
        inputs.push(vertex);
        Ok(inputs.len() - 1)
    }

    fn bind(
        &mut self,
        mount: &ResolvedMount,
        flag: &MountFlag,
        inputs: &mut Vec<VertexId>,
    ) -> Result<Mount, LowerError> {
        let target = self
            .target(&mount.target)
            .map_err(|error| error.at(flag.span))?;
        let input = self.mount_input(flag.from.as_ref(), inputs)?;
        Ok(Mount {
            target,
            read_only: mount.read_only,
            kind: MountKind::Bind {
                input,
                source: join_dir("/", &mount.source),
            },
        })
    }

    fn cache(
        &mut self,
        mount: &ResolvedMount,
        flag: &MountFlag,
        inputs: &mut Vec<VertexId>,
    ) -> Result<Mount, LowerError> {
        let target = self
            .target(&mount.target)
            .map_err(|error| error.at(flag.span))?;
        let namespace = self
            .plan
            .build_args
            .get("BUILDKIT_CACHE_MOUNT_NS")
            .map_or("", String::as_str);
        let id = if mount.id.is_empty() {
            clean(&mount.target)
        } else {
            mount.id.clone()
        };
        let seed = match flag.from.as_ref().filter(|from| from.text != "scratch") {
            Some(from) => Some((
                self.mount_input(Some(from), inputs)?,
                join_dir("/", &mount.source),
            )),
            None => None,
        };
        Ok(Mount {
            target,
            read_only: mount.read_only,
            kind: MountKind::Cache {
                id: format!("{namespace}/{id}"),
                sharing: match mount.sharing.unwrap_or_default() {
                    MountSharing::Shared => Sharing::Shared,
                    MountSharing::Private => Sharing::Private,
                    MountSharing::Locked => Sharing::Locked,
                },
                seed,
                mode: mount.mode.unwrap_or(0o755),
                uid: mount.uid.unwrap_or(0),
                gid: mount.gid.unwrap_or(0),
            },
        })
    }

    /// A file, a variable, or both.
    fn secret(
        &mut self,
        mount: &ResolvedMount,
        span: Span,
        mounts: &mut Vec<Mount>,
    ) -> Result<(), LowerError> {
        let id = [&mount.source, &mount.id]
            .into_iter()
            .find(|id| !id.is_empty())
            .map_or_else(|| base_name(&mount.target).to_owned(), Clone::clone);
        if id.is_empty() {
            return Err(mount_error(
                "invalid secret mount. one of source, target required",
            ));
        }
        self.output.outline.secret(&id, mount, span);
        if mount.env.is_none() || !mount.target.is_empty() {
            let target = if mount.target.is_empty() {
                format!("/run/secrets/{}", base_name(&id))
            } else {
                mount.target.clone()
            };
            mounts.push(Mount {
                target: self.target(&target)?,
                read_only: true,
                kind: MountKind::Secret {
                    id: id.clone(),
                    required: mount.required,
                    mode: mount.mode.unwrap_or(0o400),
                    uid: mount.uid.unwrap_or(0),
                    gid: mount.gid.unwrap_or(0),
                },
            });
        }
        if let Some(variable) = &mount.env {
            let variable = if variable.is_empty() { &id } else { variable };
            if variable.contains(['=', '\0']) {
                return Err(mount_error(format!(
                    "{variable:?} cannot be the name of a variable"
                )));
            }
            mounts.push(Mount {
                target: String::new(),
                read_only: true,
                kind: MountKind::SecretEnv {
                    variable: variable.clone(),
                    id,
                    required: mount.required,
                },
            });
        }
        Ok(())
    }

    fn ssh(
        &mut self,
        mount: &ResolvedMount,
        span: Span,
        number: usize,
    ) -> Result<Mount, LowerError> {
        if !mount.source.is_empty() {
            return Err(mount_error("ssh does not support source"));
        }
        let target = if mount.target.is_empty() {
            format!("/run/buildkit/ssh_agent.{number}")
        } else {
            mount.target.clone()
        };
        let id = match mount.id.as_str() {
            "" => "default",
            id => id,
        };
        self.output.outline.agent(id, mount, span);
        Ok(Mount {
            target: self.target(&target)?,
            read_only: true,
            kind: MountKind::Ssh {
                id: id.to_owned(),
                required: mount.required,
                mode: mount.mode.unwrap_or(0o600),
                uid: mount.uid.unwrap_or(0),
                gid: mount.gid.unwrap_or(0),
            },
        })
    }
}

fn mount_error(message: impl Into<String>) -> LowerError {
    LowerError::new(LowerErrorKind::Mount, message)
}

/// The last component.
fn base_name(path: &str) -> &str {
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default()
}

/// A path without what means nothing in it; relative ones stay relative.
fn clean(path: &str) -> String {
    let joined = join_dir("/", path);
    if path.starts_with('/') {
        joined
    } else {
        joined[1..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{base_name, clean};

    #[test]
    fn names() {
        assert_eq!(base_name("/a/b/"), "b");
        assert_eq!(base_name("b"), "b");
        assert_eq!(base_name("/"), "");
        assert_eq!(clean("/c/"), "/c");
        assert_eq!(clean("c/./d/"), "c/d");
    }
}
