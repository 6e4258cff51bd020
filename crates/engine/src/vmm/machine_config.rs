//! `--machine-config FILE`: a machine in Firecracker's words, as far as it is the user's to say.
//!
//! The file is JSON, and a part of Firecracker's own configuration file: the sections and their fields have its names.
//! What firebuild decides itself (the kernel, files of disks, tap devices) is not in it, and a field that is not known is
//! an error. A section `jailer` says what the jailer's flags say. `docs/formats/machine-config.md` has the list.

mod refused;

use std::collections::BTreeMap;
use std::path::Path;

use firebuild_vm::hardware::{
    Balloon, Cache, CpuConfig, CpuTemplate, DiskSettings, Hardware, HugePages, InterfaceLimits,
    IoEngine, Metrics, RateLimiter, TokenBucket,
};
use serde::Deserialize;

use super::Wanted;
use crate::error::Error;
use crate::run::{RunError, RunErrorKind};

/// Longest file; custom CPU templates have some fifty kilobytes.
const LARGEST: u64 = 1 << 20;

/// What a machine configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineConfig {
    /// Virtual processors.
    pub cpus: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: Option<u32>,
    /// Further kernel parameters.
    pub kernel_args: Vec<String>,
    /// Hardware.
    pub hardware: Hardware,
    /// How the work of the image's disk is done.
    pub root_disk: DiskSettings,
    /// How the work of the scratch disk is done.
    pub scratch_disk: DiskSettings,
    /// Whether the metadata service answers with text only.
    pub imds_compat: bool,
    jailer: Jailer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct File {
    machine_config: Machine,
    cpu_config: Option<CpuConfigOrPath>,
    boot_source: Boot,
    drives: Vec<Drive>,
    network_interfaces: Vec<Interface>,
    balloon: Option<Balloon>,
    entropy: Option<Entropy>,
    serial: Serial,
    metrics: Option<Metrics>,
    mmds_config: Mmds,
    jailer: Jailer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Machine {
    vcpu_count: Option<u32>,
    mem_size_mib: Option<u32>,
    smt: bool,
    cpu_template: Option<CpuTemplate>,
    huge_pages: HugePages,
}

#[derive(Debug)]
enum CpuConfigOrPath {
    Path(std::path::PathBuf),
    Inline(Box<CpuConfig>),
}

/// Not `untagged`, which would hide what is wrong with the object.
impl<'de> Deserialize<'de> for CpuConfigOrPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        if let serde_json::Value::String(path) = value {
            return Ok(Self::Path(path.into()));
        }
        CpuConfig::deserialize(value)
            .map(|config| Self::Inline(Box::new(config)))
            .map_err(serde::de::Error::custom)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Boot {
    boot_args: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drive {
    drive_id: DriveId,
    #[serde(default)]
    cache_type: Option<Cache>,
    #[serde(default)]
    io_engine: Option<IoEngine>,
    #[serde(default)]
    rate_limiter: Option<RateLimiter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DriveId {
    Root,
    Scratch,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Interface {
    iface_id: InterfaceId,
    #[serde(default)]
    mtu: Option<u16>,
    #[serde(default)]
    rx_rate_limiter: Option<RateLimiter>,
    #[serde(default)]
    tx_rate_limiter: Option<RateLimiter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum InterfaceId {
    #[serde(rename = "eth0")]
    First,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Entropy {
    rate_limiter: Option<RateLimiter>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Serial {
    rate_limiter: Option<TokenBucket>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mmds {
    imds_compat: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Jailer {
    uid: Option<u32>,
    gid: Option<u32>,
    numa_node: Option<u32>,
    cgroup_version: Option<u8>,
    parent_cgroup: Option<String>,
    cgroup: BTreeMap<String, String>,
    resource_limit: Limits,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Limits {
    fsize: Option<u64>,
    no_file: Option<u64>,
}

impl MachineConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, is too long, or says something that is not known, with the line.
    pub fn read(path: &Path) -> Result<Self, RunError> {
        let wrong = |cause: crate::error::Cause| {
            Error::caused(
                RunErrorKind::Flag,
                format!(
                    "the machine configuration {} cannot be used",
                    path.display()
                ),
                cause,
            )
        };
        let file: File = read_json(path).map_err(|cause| {
            // Why not is more than that it is not known.
            let reason = read_json(path).ok().and_then(|file| refused::reason(&file));
            wrong(reason.map_or(cause, Into::into))
        })?;
        let base = path.parent().unwrap_or(Path::new(""));
        Self::of(file, base).map_err(wrong)
    }

    fn of(file: File, base: &Path) -> Result<Self, crate::error::Cause> {
        let mut config = Self {
            cpus: file.machine_config.vcpu_count,
            memory_mib: file.machine_config.mem_size_mib,
            kernel_args: words(&file.boot_source.boot_args),
            hardware: Hardware {
                smt: file.machine_config.smt,
                cpu_template: file.machine_config.cpu_template,
                cpu_config: file
                    .cpu_config
                    .map(|config| match config {
                        CpuConfigOrPath::Inline(config) => Ok(*config),
                        CpuConfigOrPath::Path(path) => read_json(&base.join(path)),
                    })
                    .transpose()?,
                huge_pages: file.machine_config.huge_pages,
                balloon: file.balloon,
                entropy_limit: file.entropy.and_then(|entropy| entropy.rate_limiter),
                interface: InterfaceLimits::default(),
                mtu: None,
                serial_limit: file.serial.rate_limiter,
                metrics: file
                    .metrics
                    .map(|metrics| absolute(metrics, base))
                    .transpose()?,
            },
            imds_compat: file.mmds_config.imds_compat,
            jailer: file.jailer,
            ..Self::default()
        };
        let mut seen = Vec::new();
        for drive in file.drives {
            if seen.contains(&drive.drive_id) {
                return Err(format!("drives: {:?} is there twice", drive.drive_id).into());
            }
            seen.push(drive.drive_id);
            let settings = DiskSettings {
                cache: drive.cache_type,
                io_engine: drive.io_engine,
                rate_limiter: drive.rate_limiter,
            };
            match drive.drive_id {
                DriveId::Root => config.root_disk = settings,
                DriveId::Scratch => config.scratch_disk = settings,
            }
        }
        let mut interfaces = file.network_interfaces.into_iter();
        if let Some(Interface {
            iface_id: InterfaceId::First,
            mtu,
            rx_rate_limiter: rx,
            tx_rate_limiter: tx,
        }) = interfaces.next()
        {
            config.hardware.interface = InterfaceLimits { rx, tx };
            config.hardware.mtu = mtu;
        }
        if interfaces.next().is_some() {
            return Err("network-interfaces: eth0 is there twice".into());
        }
        Ok(config)
    }

    /// Fills in what flags have left open of the jail.
    pub fn complete(&self, wanted: &mut Wanted) {
        let jailer = &self.jailer;
        wanted.user = wanted.user.or(jailer.uid);
        wanted.group = wanted.group.or(jailer.gid);
        wanted.numa_node = wanted.numa_node.or(jailer.numa_node);
        wanted.cgroup_version = jailer.cgroup_version;
        wanted.parent_cgroup.clone_from(&jailer.parent_cgroup);
        wanted.cgroup = jailer.cgroup.clone().into_iter().collect();
        wanted.max_file_bytes = jailer.resource_limit.fsize;
        wanted.max_open_files = jailer.resource_limit.no_file;
    }
}

/// Metrics whose file is seen from the directory of the configuration.
fn absolute(mut metrics: Metrics, base: &Path) -> Result<Metrics, crate::error::Cause> {
    metrics.metrics_path = std::path::absolute(base.join(&metrics.metrics_path))?;
    Ok(metrics)
}

/// The words of a kernel command line; spaces inside of double quotes divide nothing (`lib/cmdline.c`, `next_arg`).
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                words.push(String::new());
                continue;
            }
            _ => {}
        }
        words.last_mut().expect("there is one").push(character);
    }
    words.retain(|word| !word.is_empty());
    words
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, crate::error::Cause> {
    use std::io::Read;
    let mut text = Vec::new();
    let read = fs_err::File::open(path)?
        .take(LARGEST + 1)
        .read_to_end(&mut text)?;
    if read as u64 > LARGEST {
        return Err(format!("it has more than {LARGEST} bytes").into());
    }
    // A list would be taken for an object without names.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err("it is not a JSON object".into());
    }
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use firebuild_vm::hardware::{Cache, CpuTemplate, HugePages, IoEngine};

    use super::{MachineConfig, words};
    use crate::vmm::Wanted;

    fn read(text: &str) -> Result<MachineConfig, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machine.json");
        fs_err::write(&path, text).unwrap();
        fs_err::write(
            dir.path().join("cpu.json"),
            r#"{"kvm_capabilities": ["!56"]}"#,
        )
        .unwrap();
        MachineConfig::read(&path).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", cause.unwrap_or_default())
        })
    }

    const WHOLE: &str = r#"{
        "machine-config": {"vcpu_count": 2, "mem_size_mib": 1024, "smt": true, "cpu_template": "T2", "huge_pages": "2M"},
        "boot-source": {"boot_args": "quiet dyndbg=\"file a +p\""},
        "drives": [
            {"drive_id": "root", "io_engine": "Async"},
            {"drive_id": "scratch", "cache_type": "Writeback",
             "rate_limiter": {"ops": {"size": 5, "refill_time": 10, "one_time_burst": 7}}}
        ],
        "network-interfaces": [
            {"iface_id": "eth0", "mtu": 1400, "rx_rate_limiter": {"bandwidth": {"size": 1, "refill_time": 2}}}
        ],
        "balloon": {"amount_mib": 1, "deflate_on_oom": true},
        "entropy": {"rate_limiter": {"bandwidth": {"size": 1, "refill_time": 2}}},
        "serial": {"rate_limiter": {"size": 65536, "refill_time": 1000}},
        "metrics": {"metrics_path": "vm.metrics", "emit_id": true, "properties": {"team": "a"}},
        "mmds-config": {"imds_compat": true},
        "jailer": {"uid": 7, "gid": 8, "cgroup_version": 2, "parent_cgroup": "vms",
                   "cgroup": {"memory.max": "1000"}, "resource_limit": {"fsize": 9, "no-file": 10}}
    }"#;

    #[test]
    fn everything_is_read() {
        let config = read(WHOLE).unwrap();
        assert_eq!((config.cpus, config.memory_mib), (Some(2), Some(1024)));
        assert_eq!(config.kernel_args, ["quiet", "dyndbg=\"file a +p\""]);
        let hardware = &config.hardware;
        assert!(hardware.smt && hardware.balloon.is_some() && hardware.entropy_limit.is_some());
        assert_eq!(hardware.cpu_template, Some(CpuTemplate::T2));
        assert_eq!(hardware.huge_pages, HugePages::TwoMib);
        assert!(hardware.interface.rx.is_some() && hardware.interface.tx.is_none());
        assert_eq!(hardware.mtu, Some(1400));
        assert_eq!(hardware.serial_limit.map(|limit| limit.size), Some(65536));
        let metrics = hardware.metrics.as_ref().unwrap();
        assert!(metrics.metrics_path.is_absolute() && metrics.metrics_path.ends_with("vm.metrics"));
        assert!(metrics.emit_id && metrics.properties["team"] == "a" && config.imds_compat);
        assert_eq!(config.root_disk.io_engine, Some(IoEngine::Async));
        assert_eq!(config.scratch_disk.cache, Some(Cache::Writeback));
        let ops = config.scratch_disk.rate_limiter.unwrap().ops.unwrap();
        assert_eq!(ops.one_time_burst, Some(7));

        let mut wanted = Wanted {
            user: Some(99),
            ..Wanted::default()
        };
        read(WHOLE).unwrap().complete(&mut wanted);
        assert_eq!(
            (wanted.user, wanted.group),
            (Some(99), Some(8)),
            "flags win"
        );
        assert_eq!(
            wanted.cgroup,
            [("memory.max".to_owned(), "1000".to_owned())]
        );
        assert_eq!(
            (wanted.max_file_bytes, wanted.max_open_files),
            (Some(9), Some(10))
        );
        assert_eq!(read("{}").unwrap(), MachineConfig::default());
    }

    #[test]
    fn a_cpu_config_may_be_a_file_beside_it() {
        let config = read(r#"{"cpu-config": "cpu.json"}"#).unwrap();
        let inline = read(r#"{"cpu-config": {"kvm_capabilities": ["!56"]}}"#).unwrap();
        assert_eq!(config, inline);
        assert!(config.hardware.cpu_config.is_some());
    }

    #[test]
    fn what_is_not_known_is_an_error_that_names_it() {
        for (text, word) in [
            (r#"{"machine_config": {}}"#, "machine_config"),
            (r#"{"machine-config": {"vcpus": 1}}"#, "vcpus"),
            (
                r#"{"drives": [{"drive_id": "root", "path_on_host": "/x"}]}"#,
                "drives.path_on_host: 'root' is the image",
            ),
            (r#"{"pmem": []}"#, "pmem: the image is a disk"),
            (r#"{"drives": [{"drive_id": "data"}]}"#, "data"),
            (
                r#"{"drives": [{"drive_id": "root"}, {"drive_id": "root"}]}"#,
                "twice",
            ),
            (r#"{"network-interfaces": [{"iface_id": "eth1"}]}"#, "eth1"),
            (
                r#"{"cpu-config": {"reg_modifiers": []}}"#,
                "they are of ARM",
            ),
            (
                r#"{"serial": {"serial_out_path": "/x"}}"#,
                "firebuild logs --console",
            ),
            (r#"{"metrics": {}}"#, "metrics_path"),
            (
                r#"{"mmds-config": {"ipv4_address": "1.2.3.4"}}"#,
                "ipv4_address",
            ),
            (r#"{"cpu-config": "missing.json"}"#, "missing.json"),
            (r#"{"machine-config": {"huge_pages": "1G"}}"#, "1G"),
            (r#"{"jailer": {"resource_limit": {"cpu": 1}}}"#, "cpu"),
            ("[]", "machine.json"),
            ("{", "EOF"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        let long = format!("{{\"x\": \"{}\"}}", "a".repeat(1 << 20));
        assert!(read(&long).unwrap_err().contains("more than"));
    }

    #[test]
    fn kernel_parameters_are_divided_as_the_kernel_does() {
        assert_eq!(words(" a  b=\"c d\"\te "), ["a", "b=\"c d\"", "e"]);
        assert!(words("  ").is_empty());
    }
}
