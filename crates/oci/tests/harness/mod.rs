//! What the tests of this crate need from outside: a real registry, tools, and small images.

#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::print_stderr, reason = "a skip is said")]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_oci::layout::{LayoutWriter, REF_NAME};
use firebuild_oci::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, media_type};

/// Whether a tool is there. If not, says so, or fails where `FIREBUILD_TEST_REQUIRE` names it.
pub(crate) fn have(test: &str, tool: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
    });
    if !found {
        let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
        let need = format!("tool:{tool}");
        let is_required = required
            .split(',')
            .any(|name| name == need || (tool == "docker-registry" && name == "registry"));
        assert!(
            !is_required,
            "{test} needs {tool}, which FIREBUILD_TEST_REQUIRE demands"
        );
        eprintln!("SKIP {test}: {tool} is not installed");
    }
    found
}

/// Debian's `docker-registry` on loopback; ends with this value, or after five minutes.
pub(crate) struct RealRegistry {
    child: Child,
    pub(crate) address: String,
    pub(crate) directory: tempfile::TempDir,
}

impl RealRegistry {
    /// Starts one; `None` if it is not installed.
    pub(crate) fn start(test: &str) -> Option<Self> {
        Self::start_at(test, "127.0.0.1", "")
    }

    /// Starts one at an address with more lines of configuration under `http:`.
    pub(crate) fn start_at(test: &str, host: &str, http: &str) -> Option<Self> {
        if !have(test, "docker-registry") {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((host, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("{host}:{port}");
        let config = directory.path().join("config.yml");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n\
                 storage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
                 http:\n  addr: {address}\n{http}",
                directory.path().join("data").display()
            ),
        )
        .unwrap();
        let child = Command::new("timeout")
            .args(["300", "docker-registry", "serve"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self {
            child,
            address,
            directory,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.address).is_err() {
            assert!(
                Instant::now() < deadline,
                "docker-registry does not listen on {}",
                registry.address
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    /// Copies an image with skopeo into the registry, as another tool would push it.
    pub(crate) fn skopeo(&self, from: &str, name: &str, options: &[&str]) {
        run(Command::new("skopeo")
            .args(["copy", "--quiet", "--dest-tls-verify=false"])
            .args(options)
            .arg(from)
            .arg(format!("docker://{}/{name}", self.address)));
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        // timeout(1) hands the signal on to the registry.
        if let Some(pid) = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Runs a program and fails with what it said.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A tar with one file.
pub(crate) fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap()
}

/// Bytes that do not compress.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// A small image: its blobs and the descriptor of its manifest.
pub(crate) struct Image {
    pub(crate) blobs: Vec<(Descriptor, Vec<u8>)>,
    pub(crate) manifest: Descriptor,
    pub(crate) manifest_bytes: Vec<u8>,
    pub(crate) config: ImageConfig,
}

/// An image with these layers.
pub(crate) fn image(platform: &str, layers: &[Vec<u8>]) -> Image {
    let mut config = ImageConfig::new(platform.parse::<Platform>().unwrap());
    config.rootfs.diff_ids = layers.iter().map(Digest::of).collect();
    config.config.cmd = Some(vec!["/bin/true".to_owned()]);
    let config_bytes = config.to_bytes();
    let config_descriptor = Descriptor::of(media_type::OCI_CONFIG, &config_bytes);
    let mut blobs: Vec<(Descriptor, Vec<u8>)> = layers
        .iter()
        .map(|layer| (Descriptor::of(media_type::OCI_LAYER, layer), layer.clone()))
        .collect();
    let manifest = Manifest::new(
        config_descriptor.clone(),
        blobs.iter().map(|(d, _)| d.clone()).collect(),
    );
    blobs.push((config_descriptor, config_bytes));
    let manifest_bytes = manifest.to_bytes();
    let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &manifest_bytes);
    blobs.push((descriptor.clone(), manifest_bytes.clone()));
    Image {
        blobs,
        manifest: descriptor,
        manifest_bytes,
        config,
    }
}

/// Writes images into a layout, and an index over all of them where there are several.
pub(crate) fn write(mut writer: LayoutWriter, images: &[(&str, &Image)], tag: &str) {
    let mut entries = Vec::new();
    for (platform, image) in images {
        for (descriptor, bytes) in &image.blobs {
            writer.blob(descriptor, &mut bytes.as_slice()).unwrap();
        }
        let mut entry = image.manifest.clone();
        entry.platform = Some(platform.parse().unwrap());
        entries.push(entry);
    }
    let mut top = if entries.len() == 1 {
        entries.remove(0)
    } else {
        let bytes = Index::new(entries).to_bytes();
        let descriptor = Descriptor::of(media_type::OCI_INDEX, &bytes);
        writer.blob(&descriptor, &mut bytes.as_slice()).unwrap();
        descriptor
    };
    top.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
    writer.finish(&Index::new(vec![top])).unwrap();
}

/// A layout directory with one image.
pub(crate) fn layout(directory: &Path, image: &Image, tag: &str) -> PathBuf {
    let path = directory.join("layout");
    write(
        LayoutWriter::directory(&path).unwrap(),
        &[("linux/amd64", image)],
        tag,
    );
    path
}

/// A writer that can be looked into afterwards.
#[derive(Clone, Default)]
pub(crate) struct Shared(pub(crate) std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
