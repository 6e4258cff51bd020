//! The graph: what must be computed, as plain data.
//!
//! A [`Graph`] is made by `lower` (pure) and computed by `solve`. Each [`Vertex`] is one operation that gives one file
//! system: a chain of layers. Inputs stand before their users in `vertices`, so the graph has no cycle by construction.
//!
//! ```text
//!   0 image docker.io/library/debian:bookworm@sha256:…
//!   1 context ""
//!   2 copy  0 ← 1 ["app"] → /srv/            (input 0 is what is copied onto, the others are copied from)
//!   3 exec  2: ["/bin/sh","-c","make"]        (input 0 is `/`, the others are bind mounts)
//! ```
//!
//! What an operation *is* and how it is *called* are apart: `name` and `span` are for people and are no part of any
//! cache key. Names are resolved before lowering: an image is named by the digest of its configuration and its layers.

use firebuild_dockerfile::Span;
use firebuild_oci::Digest;

/// The index of a vertex in its [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(pub u32);

/// Everything that must be computed for one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// The operations; inputs precede their users.
    pub vertices: Vec<Vertex>,
    /// The vertex whose file system is the result.
    pub target: VertexId,
}

/// One operation with its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vertex {
    /// What to do.
    pub op: Op,
    /// Vertices whose results are needed, by the position that the operation gives them.
    pub inputs: Vec<VertexId>,
    /// What a person reads: `[build 2/5] RUN make`. Not part of the cache key.
    pub name: String,
    /// The stage that this belongs to, for `--no-cache=STAGE` and for progress; empty for sources.
    pub stage: String,
    /// Where in the Dockerfile it comes from, if it does. Not part of the cache key.
    pub span: Option<Span>,
}

/// What a vertex does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The empty file system. No inputs.
    Scratch,
    /// The layers of a resolved image. No inputs.
    Image(ImageOp),
    /// Files that the caller gives: the build context or a named one. No inputs.
    Context(ContextOp),
    /// A file fetched from an `http(s)://` address. No inputs.
    Http(HttpOp),
    /// A checked-out git repository. No inputs.
    Git(GitOp),
    /// RUN. Input 0 is the root file system; the others are referred to by [`MountKind`].
    Exec(ExecOp),
    /// COPY or ADD. Input 0 is copied onto; the others are referred to by [`CopySource`].
    Copy(CopyOp),
    /// WORKDIR: a directory that must exist. Input 0 is the file system it is made in.
    Mkdir(MkdirOp),
    /// Input 0 with the layers of input 1 on top, whatever input 0 holds (COPY --link).
    Merge,
}

/// A resolved image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOp {
    /// The canonical reference that was resolved, for people.
    pub reference: String,
    /// Digests of its uncompressed layers (diff IDs), lowest first.
    pub layers: Vec<Digest>,
}

/// A build context.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContextOp {
    /// The name of a `--build-context`, or empty for the main context.
    pub name: String,
}

/// ADD of an `http(s)://` source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOp {
    /// The address.
    pub url: String,
    /// The name that the file gets: the last element of the path, or `__unnamed__`.
    pub file_name: String,
    /// What the content must hash to (`--checksum`).
    pub checksum: Option<String>,
    /// Whether it lies beside a Dockerfile that was fetched itself: it is then an ordinary file of mode 0644, and not
    /// a directory.
    pub beside: bool,
}

/// ADD of a git source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitOp {
    /// The repository, without the fragment.
    pub remote: String,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// Directory in the repository that is taken; empty for all.
    pub subdir: String,
    /// Whether `.git` stays (`--keep-git-dir`).
    pub keep_git_dir: bool,
    /// A prefix of the commit that it must be (`--checksum`).
    pub checksum: Option<String>,
    /// Whether submodules are fetched, too.
    pub submodules: bool,
    /// Whether files get the time of the commit instead of that of the checkout (`mtime=commit`).
    pub commit_times: bool,
    /// Whether the commit of `checksum` is fetched directly, whatever the reference stands for.
    pub fetch_by_commit: bool,
}

/// RUN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOp {
    /// The program and its arguments: SHELL and the text, or the exec form as it is.
    pub argv: Vec<String>,
    /// The environment in order: image ENV, then ARG values in scope. `PATH` is in it; `HOME` is the executor's.
    pub env: Vec<(String, String)>,
    /// Proxy variables that are given to the step and are no part of its cache key.
    pub proxy_env: Vec<(String, String)>,
    /// Working directory, absolute; made if it is missing.
    pub cwd: String,
    /// `USER` as written: `name|id[:group|id]`; empty is root.
    pub user: String,
    /// Host name inside the step.
    pub hostname: String,
    /// What network the step sees.
    pub network: NetworkMode,
    /// Whether the step keeps the privileges of the builder.
    pub security: SecurityMode,
    /// Further lines of `/etc/hosts`: address and name.
    pub extra_hosts: Vec<(String, String)>,
    /// Further mounts, in order.
    pub mounts: Vec<Mount>,
    /// Files that exist only during the step (heredoc scripts).
    pub files: Vec<InlineFile>,
}

/// `RUN --network`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// What the builder gives by default.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's network.
    Host,
}

/// `RUN --security`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecurityMode {
    /// Reduced capabilities and a seccomp filter.
    #[default]
    Sandbox,
    /// All that the builder itself has.
    Insecure,
}

/// A file that a step sees and that never enters a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// Absolute path in the step.
    pub path: String,
    /// Content.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// One `RUN --mount`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it appears, absolute.
    pub target: String,
    /// Whether writes are refused.
    pub read_only: bool,
    /// What it is.
    pub kind: MountKind,
}

/// What a [`Mount`] shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A file or directory of an input. Writes, when allowed, go to a copy that is thrown away.
    Bind {
        /// Position in the vertex's inputs (never 0 unless it is the step's own root).
        input: usize,
        /// Path inside that input.
        source: String,
    },
    /// A directory that lives between builds.
    Cache {
        /// Its identity, namespace included.
        id: String,
        /// Who may use it at the same time.
        sharing: Sharing,
        /// Input and path that fill it when it is new.
        seed: Option<(usize, String)>,
        /// Permission bits of a new directory.
        mode: u32,
        /// Owner of a new directory.
        uid: u32,
        /// Group of a new directory.
        gid: u32,
    },
    /// Memory.
    Tmpfs {
        /// Limit in bytes; none is half of the memory.
        size: Option<u64>,
    },
    /// A secret as a file.
    Secret {
        /// Its name on the command line.
        id: String,
        /// Whether the build fails without it.
        required: bool,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A secret as an environment variable; `target` is empty.
    SecretEnv {
        /// Its name on the command line.
        id: String,
        /// Whether the build fails without it.
        required: bool,
        /// The variable.
        variable: String,
    },
    /// The socket of an SSH agent.
    Ssh {
        /// Its name on the command line.
        id: String,
        /// Whether the build fails without it.
        required: bool,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// `sharing=` of a cache mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Anyone at any time.
    #[default]
    Shared,
    /// A second user gets a directory of his own.
    Private,
    /// A second user waits.
    Locked,
}

/// COPY or ADD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyOp {
    /// What is copied, in order.
    pub sources: Vec<CopySource>,
    /// Destination after expansion, absolute (joined to WORKDIR); a trailing slash says "directory".
    pub dest: String,
    /// `--chown`, expanded: `user[:group]`.
    pub chown: Option<String>,
    /// `--chmod`, expanded: octal or symbolic.
    pub chmod: Option<String>,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<String>,
    /// Whether owners of the source are kept (a stage or image) or are 0:0 (a context, a URL, git).
    pub keep_owner: bool,
    /// What ADD does with local archives and fetched ones.
    pub unpack: Unpack,
}

/// When ADD unpacks an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unpack {
    /// Never: COPY, and `ADD --unpack=false`.
    #[default]
    Never,
    /// ADD: local files that are archives, not what was fetched.
    Local,
    /// `ADD --unpack`: whatever is an archive.
    Always,
}

/// One source of a COPY or ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// Files of an input, by pattern.
    Paths {
        /// Position in the vertex's inputs, 1 or more.
        input: usize,
        /// Path or wildcard in that input, expanded.
        pattern: String,
        /// Whether ADD fetched it from elsewhere (it is then not unpacked by default).
        remote: bool,
    },
    /// A heredoc.
    Inline {
        /// The file's name.
        name: String,
        /// The file's content, expanded.
        data: Vec<u8>,
    },
}

/// WORKDIR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MkdirOp {
    /// Absolute path; parents that are missing are made too.
    pub path: String,
    /// `USER` in force, who owns what is made; empty is root.
    pub user: String,
}

impl Graph {
    /// The vertex of an id.
    #[must_use]
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.vertices[id.0 as usize]
    }

    /// The ids of all vertices that the target needs, itself included, inputs before users.
    #[must_use]
    pub fn needed(&self) -> Vec<VertexId> {
        let mut wanted = vec![false; self.vertices.len()];
        wanted[self.target.0 as usize] = true;
        // Inputs precede users, so one pass from the end sees every user before its inputs.
        for index in (0..self.vertices.len()).rev() {
            if wanted[index] {
                for input in &self.vertices[index].inputs {
                    wanted[input.0 as usize] = true;
                }
            }
        }
        (0..self.vertices.len())
            .filter(|index| wanted[*index])
            .map(|index| {
                VertexId(u32::try_from(index).expect("a graph has fewer than 2^32 vertices"))
            })
            .collect()
    }
}
