//! The metadata document of a guest: `latest/meta-data` with the keys and spellings of the original firebuild, and what
//! `--metadata` merges into it.
//!
//! Every number and flag in it is a text, as there. Values of `--env` are not in it unless `--mmds-env` asks for them: every
//! process of the guest can read it.

use std::io::Read;
use std::path::{Path, PathBuf};

use firebuild_guest_proto::metadata::{Document, MAX_METADATA_BYTES, fits, merge};
use firebuild_guest_proto::{Account, Interface, InterfaceRef, RunConfig};
use firebuild_oci::ContainerConfig;
use serde_json::{Map, Value, json};

pub use firebuild_vm::spec::MmdsVersion;

use super::command::Argv;
use super::error::{RunError, RunErrorKind};
use super::request::Request;
use crate::error::Error;

/// What a guest that asks nobody's user is, in the original's words.
const ROOT: &str = "0:0";
/// The shell of an image that has no SHELL.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// A file of metadata is a few kilobytes; the limit of the document comes after the merge.
const LARGEST_FILE: u64 = 1 << 20;

/// The metadata service that is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mmds {
    /// How the guest asks.
    pub version: MmdsVersion,
    /// Whether every answer is text, as of EC2's service, and never JSON.
    pub imds_compat: bool,
    /// Files whose members are merged into the document, in this order.
    pub files: Vec<PathBuf>,
    /// Put the values of `--env` and `--env-file` into the document.
    pub env: bool,
}

/// What the document tells of.
pub(super) struct Subject<'a> {
    pub(super) id: &'a str,
    pub(super) image_tag: &'a str,
    pub(super) image: &'a ContainerConfig,
    pub(super) argv: &'a Argv,
    pub(super) kernel: &'a str,
    /// Whether the image's disk is shared and what is written goes to another one.
    pub(super) overlay: bool,
}

/// The whole document.
pub(super) fn document(
    wanted: &Mmds,
    request: &Request,
    config: &RunConfig,
    subject: &Subject<'_>,
) -> Result<Document, RunError> {
    let mut document = Map::new();
    document.insert(
        "latest".to_owned(),
        json!({ "meta-data": meta_data(wanted, request, config, subject) }),
    );
    for path in &wanted.files {
        merge(&mut document, read(path)?);
    }
    if !fits(&document) {
        return Err(Error::new(
            RunErrorKind::Flag,
            format!("the metadata of the VM is larger than {MAX_METADATA_BYTES} bytes"),
        ));
    }
    Ok(document)
}

fn meta_data(wanted: &Mmds, request: &Request, config: &RunConfig, subject: &Subject<'_>) -> Value {
    let mut env = Map::new();
    if wanted.env {
        let given = super::env::set_by(&request.env, &config.env);
        for variable in &config.env {
            if given.contains(&variable.name) {
                env.insert(variable.name.clone(), json!(variable.value));
            }
        }
    }
    json!({
        "Drives": drives(subject.overlay),
        "EntrypointJSON": entrypoint(config, subject).to_string(),
        "Env": env,
        "ImageTag": subject.image_tag,
        "LocalHostname": config.hostname,
        "Machine": {
            "CPU": request.cpus.to_string(),
            "CPUTemplate": "",
            "HTEnabled": "false",
            "KernelArgs": request.kernel_args.join(" "),
            "Mem": request.memory_mib.to_string(),
            "VMLinux": subject.kernel,
        },
        "Network": {
            "CniNetworkName": "",
            "Interfaces": interfaces(config),
        },
        "Users": users(&config.accounts),
        "VMMID": subject.id,
    })
}

/// The image's disk and what is written beside it; paths of the host are none of the guest's business.
fn drives(overlay: bool) -> Value {
    let drive = |id: &str, root: bool, read_only: bool, name: &str| {
        json!({
            "DriveID": id,
            "IsReadOnly": read_only.to_string(),
            "IsRootDevice": root.to_string(),
            "Partuuid": "",
            "PathOnHost": name,
        })
    };
    let mut drives = Map::new();
    drives.insert("1".to_owned(), drive("1", true, overlay, "rootfs"));
    if overlay {
        drives.insert("2".to_owned(), drive("2", false, false, "scratch"));
    }
    Value::Object(drives)
}

fn entrypoint(config: &RunConfig, subject: &Subject<'_>) -> Value {
    let image = subject.image;
    let (entrypoint, cmd) = subject
        .argv
        .words
        .split_at(subject.argv.entrypoint_words.min(subject.argv.words.len()));
    let env: Map<String, Value> = image
        .env
        .iter()
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    let shell = match &image.shell {
        Some(shell) => json!(shell),
        None => json!(SHELL),
    };
    let user = if config.user.is_empty() {
        ROOT
    } else {
        &config.user
    };
    json!({
        "Cmd": cmd,
        "EntryPoint": entrypoint,
        "Env": env,
        "Shell": shell,
        "User": user,
        "Workdir": config.cwd,
    })
}

fn interfaces(config: &RunConfig) -> Value {
    let name_servers: Vec<String> = config
        .resolver
        .iter()
        .flat_map(|resolver| &resolver.nameservers)
        .map(ToString::to_string)
        .collect();
    let mut all = Map::new();
    for interface in &config.interfaces {
        let key = match &interface.select {
            InterfaceRef::Mac(mac) => mac.to_string(),
            InterfaceRef::Name(name) => name.clone(),
        };
        all.insert(key, of_interface(interface, &name_servers.join(",")));
    }
    Value::Object(all)
}

/// Puts the guest's interfaces into a document that has a place for them: their addresses are known when the machine is
/// launched.
pub(crate) fn tell_network(document: &mut Value, config: &RunConfig) {
    if let Some(network) = document.pointer_mut("/latest/meta-data/Network/Interfaces") {
        *network = interfaces(config);
    }
}

fn of_interface(interface: &Interface, name_servers: &str) -> Value {
    let first = interface
        .addresses
        .iter()
        .find(|cidr| cidr.address.is_ipv4())
        .or(interface.addresses.first());
    let gateway = interface.routes.iter().find_map(|route| route.gateway);
    let mask = first
        .filter(|cidr| cidr.address.is_ipv4())
        .map_or_else(String::new, |cidr| crate::inspect::mask(cidr.prefix.into()));
    json!({
        "Gateway": gateway.map_or_else(String::new, |gateway| gateway.to_string()),
        "HostDeviceName": "",
        "IfName": "",
        "IP": first.map_or_else(String::new, |cidr| cidr.address.to_string()),
        "IPAddr": first.map_or_else(String::new, ToString::to_string),
        "IPMask": mask,
        // The original printed the kind of the value (Go's net.IPNet.Network) in its place.
        "IPNet": "ip+net",
        "NameServers": name_servers,
    })
}

fn users(accounts: &[Account]) -> Value {
    let mut users = Map::new();
    for account in accounts {
        let keys: String = account.keys.iter().map(|key| format!("{key}\n")).collect();
        users.insert(account.name.clone(), json!({ "SSHKeys": keys }));
    }
    Value::Object(users)
}

/// Reads a file of `--metadata`: a JSON object.
fn read(path: &Path) -> Result<Document, RunError> {
    let mut text = Vec::new();
    fs_err::File::open(path)
        .and_then(|file| file.take(LARGEST_FILE).read_to_end(&mut text))
        .map_err(|error| {
            Error::caused(
                RunErrorKind::Flag,
                "cannot read the metadata of --metadata",
                error,
            )
        })?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::caused(
            RunErrorKind::Flag,
            format!("{} is no JSON object", path.display()),
            error,
        )
    })
}

#[cfg(test)]
mod tests {
    use firebuild_guest_proto::{
        Account, Channel, EnvVar, Interface, InterfaceRef, RootLayout, Route, RunConfig,
    };
    use firebuild_oci::ContainerConfig;
    use serde_json::{Value, json};

    use super::{Mmds, Subject, document};
    use crate::run::command::argv;
    use crate::run::env::Assignment;
    use crate::run::request::Request;

    fn config() -> RunConfig {
        let mut config = RunConfig::new(
            ["docker-entrypoint.sh", "agent", "-dev"]
                .map(str::to_owned)
                .to_vec(),
            "sharp-mirzakhani".to_owned(),
            RootLayout::overlay(),
            Channel::virtio_serial(),
        );
        config.cwd = "/".to_owned();
        config.env = vec![EnvVar::parse("TOKEN=hunter2").unwrap()];
        config.interfaces = vec![Interface {
            select: InterfaceRef::Mac("b6:16:f2:3d:29:cf".parse().unwrap()),
            addresses: vec!["192.168.127.89/24".parse().unwrap()],
            routes: vec![Route::default_via("192.168.127.1".parse().unwrap())],
            mtu: None,
        }];
        config
    }

    fn make(wanted: &Mmds, config: &RunConfig) -> Value {
        let image = ContainerConfig {
            entrypoint: Some(vec!["docker-entrypoint.sh".to_owned()]),
            cmd: Some(vec!["agent".to_owned(), "-dev".to_owned()]),
            env: vec!["HASHICORP_RELEASES=https://releases.hashicorp.com".to_owned()],
            ..ContainerConfig::default()
        };
        let mut request = Request::new("combust-labs/consul:1.9.4".parse().unwrap());
        request.memory_mib = 128;
        request.env = vec![Assignment::Set(EnvVar::parse("TOKEN=hunter2").unwrap())];
        let subject = Subject {
            id: "wcabty1922gloailwrce",
            image_tag: "combust-labs/consul:1.9.4",
            image: &image,
            argv: &argv(&image, None, &[]).unwrap(),
            kernel: "vmlinux-v5.8",
            overlay: false,
        };
        Value::Object(document(wanted, &request, config, &subject).unwrap())
    }

    /// The example of the original's text, where firebuild has the same to tell.
    #[test]
    fn the_document_is_the_originals() {
        let made = make(&Mmds::default(), &config());
        let expected = json!({ "latest": { "meta-data": {
            "Drives": { "1": {
                "DriveID": "1", "IsReadOnly": "false", "IsRootDevice": "true", "Partuuid": "", "PathOnHost": "rootfs",
            } },
            "EntrypointJSON": "{\"Cmd\":[\"agent\",\"-dev\"],\"EntryPoint\":[\"docker-entrypoint.sh\"],\
                \"Env\":{\"HASHICORP_RELEASES\":\"https://releases.hashicorp.com\"},\"Shell\":[\"/bin/sh\",\"-c\"],\
                \"User\":\"0:0\",\"Workdir\":\"/\"}",
            "Env": {},
            "ImageTag": "combust-labs/consul:1.9.4",
            "LocalHostname": "sharp-mirzakhani",
            "Machine": {
                "CPU": "1", "CPUTemplate": "", "HTEnabled": "false", "KernelArgs": "", "Mem": "128",
                "VMLinux": "vmlinux-v5.8",
            },
            "Network": { "CniNetworkName": "", "Interfaces": { "b6:16:f2:3d:29:cf": {
                "Gateway": "192.168.127.1", "HostDeviceName": "", "IfName": "", "IP": "192.168.127.89",
                "IPAddr": "192.168.127.89/24", "IPMask": "ffffff00", "IPNet": "ip+net", "NameServers": "",
            } } },
            "Users": {},
            "VMMID": "wcabty1922gloailwrce",
        } } });
        assert_eq!(made, expected);
    }

    #[test]
    fn keys_files_and_variables_where_they_are_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("more.json");
        let more = r##"{"latest":{"user-data":"#cloud-config\n","meta-data":{"instance-id":"i-1","Users":null}}}"##;
        fs_err::write(&file, more).unwrap();
        let mut config = config();
        config.accounts = vec![Account {
            name: "alpine".to_owned(),
            keys: vec!["ssh-rsa AAAA a".to_owned(), "ssh-rsa AAAB b".to_owned()],
            create: false,
        }];
        let plain = make(&Mmds::default(), &config);
        assert_eq!(
            plain
                .pointer("/latest/meta-data/Users/alpine/SSHKeys")
                .unwrap(),
            "ssh-rsa AAAA a\nssh-rsa AAAB b\n"
        );
        assert!(!plain.to_string().contains("hunter2"));
        let wanted = Mmds {
            files: vec![file.clone()],
            env: true,
            ..Mmds::default()
        };
        let merged = make(&wanted, &config);
        assert_eq!(
            merged.pointer("/latest/user-data").unwrap(),
            "#cloud-config\n"
        );
        assert_eq!(
            merged.pointer("/latest/meta-data/instance-id").unwrap(),
            "i-1"
        );
        assert_eq!(merged.pointer("/latest/meta-data/Users"), None);
        assert_eq!(
            merged.pointer("/latest/meta-data/Env/TOKEN").unwrap(),
            "hunter2"
        );
    }
}
