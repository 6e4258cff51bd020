//! `firebuild inspect`: everything about an instance, as JSON.
//!
//! Three vocabularies stand beside each other: Docker's `Id`, `Name`, `State`, `Config`; the keys of the
//! original firebuild (`VMMID`, `Configs`, `NetworkInterfaces[0].StaticConfiguration.IPConfiguration.IP`,
//! …); and our own, under `Firebuild`. Values of variables are masked in all of them.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::instance::{
    Instance, InstanceError, Instances, MachineRecord, NetworkRecord, Record, Started, State,
};
use crate::paths::Paths;

/// Docker's time of something that has not happened.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// Docker's exit code for a container whose end nobody saw (moby `daemon/daemon.go`, restore).
const UNSEEN: u8 = 255;

/// Everything about the instance of a name, an id or a unique beginning of an id.
///
/// # Errors
/// `NotFound`, `Ambiguous`, `Corrupt`, `Io`.
pub fn inspect(paths: &Paths, wanted: &str) -> Result<Value, InstanceError> {
    let instance = Instances::new(paths).find(wanted)?;
    let state = instance.state()?;
    let started = instance.started()?;
    let machine = instance.machine()?;
    let health = instance.health()?;
    let mut all = describe(&instance, &state, started.as_ref(), machine.as_ref());
    if let Some(health) = health.map(|health| state.health(health)) {
        all["State"]["Health"] = json!(health);
    }
    all["RestartCount"] = json!(instance.restarts()?.map_or(0, |restarts| restarts.count));
    Ok(all)
}

fn describe(
    instance: &Instance,
    state: &State,
    started: Option<&Started>,
    machine: Option<&MachineRecord>,
) -> Value {
    let record = instance.record();
    let pid = match state {
        State::Running { machine, .. } => machine
            .as_ref()
            .and_then(|machine| machine.vmm)
            .map_or(0, |vmm| vmm.pid),
        _ => 0,
    };
    let mut all = docker(record, state, started, pid);
    all.append(&mut original(instance, record, started, pid));
    all.insert("Firebuild".to_owned(), ours(instance, machine));
    Value::Object(all)
}

fn docker(
    record: &Record,
    state: &State,
    started: Option<&Started>,
    pid: i32,
) -> Map<String, Value> {
    let (words_of_entrypoint, words_of_cmd) = record
        .argv
        .split_at(record.entrypoint_words.min(record.argv.len()));
    let (exit_code, oom_killed, error, finished) = match state {
        State::Restarting(ended) | State::Exited(ended) => (
            ended.exit_code,
            ended.oom_killed,
            ended.error.clone(),
            time(ended.finished_at),
        ),
        State::Dead => (
            UNSEEN,
            false,
            "its monitor was killed, or the host lost its power".to_owned(),
            NEVER.to_owned(),
        ),
        _ => (0, false, String::new(), NEVER.to_owned()),
    };
    let ports: Map<String, Value> = record
        .network
        .publish
        .iter()
        .map(|port| {
            let host = json!([{
                "HostIp": port.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string()),
                "HostPort": port.host_port.to_string(),
            }]);
            (format!("{}/{}", port.guest_port, port.protocol), host)
        })
        .collect();
    let value = json!({
        "Id": record.id,
        "Name": format!("/{}", record.name),
        "Created": time(record.created_at),
        "Path": record.argv.first(),
        "Args": record.argv.get(1..),
        "Image": record.image_digest,
        "State": {
            "Status": state.word(),
            // Docker counts one that is being restarted as running.
            "Running": matches!(state, State::Running { .. } | State::Restarting(_)),
            "Paused": matches!(state, State::Running { paused: true, .. }),
            "Restarting": matches!(state, State::Restarting(_)),
            "OOMKilled": oom_killed,
            "Dead": matches!(state, State::Dead),
            "Pid": pid,
            "ExitCode": exit_code,
            "Error": error,
            "StartedAt": started.map_or_else(|| NEVER.to_owned(), |started| time(started.started_at)),
            "FinishedAt": finished,
        },
        "Config": {
            "Hostname": record.hostname,
            "User": record.user,
            "Tty": record.terminal,
            "OpenStdin": record.stdin,
            "Env": record.env,
            "Cmd": words_of_cmd,
            "Entrypoint": words_of_entrypoint,
            "Image": record.image,
            "WorkingDir": record.cwd,
            "Labels": record.labels,
            "StopSignal": record.stop_signal,
            "Healthcheck": record.healthcheck,
            "StopTimeout": record.stop_timeout,
        },
        "RestartCount": 0,
        "HostConfig": {
            "RestartPolicy": {
                "Name": record.restart.name(),
                "MaximumRetryCount": record.restart.most(),
            },
            "AutoRemove": record.remove,
        },
        "NetworkSettings": {
            "Ports": ports,
            "IPAddress": ipv4(&record.network).map(|(address, _)| address),
            "Gateway": record.network.gateway,
            "MacAddress": record.network.mac,
        },
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn original(
    instance: &Instance,
    record: &Record,
    started: Option<&Started>,
    pid: i32,
) -> Map<String, Value> {
    let ports: Vec<String> = record
        .network
        .publish
        .iter()
        .map(ToString::to_string)
        .collect();
    let interfaces: Vec<Value> = ipv4(&record.network)
        .map(|(address, prefix)| {
            json!({
                "AllowMMDS": record.metadata,
                "InRateLimiter": record.interface_limits.rx,
                "OutRateLimiter": record.interface_limits.tx,
                "StaticConfiguration": {
                    "MacAddress": record.network.mac,
                    "HostDeviceName": "",
                    "IPConfiguration": {
                        "Gateway": record.network.gateway,
                        "IfName": "eth0",
                        "IP": address,
                        "IPAddr": format!("{address}/{prefix}"),
                        "IPMask": mask(prefix),
                        "IPNet": format!("{address}/{prefix}"),
                        "NameServers": record.network.nameservers,
                    },
                },
            })
        })
        .into_iter()
        .collect();
    let value = json!({
        "VMMID": record.id,
        "Type": "run",
        "StartedAtUTC": started.map_or(record.created_at, |started| started.started_at).as_second(),
        "RunCache": instance.dir(),
        // Not "Pid": a second spelling of State.Pid that the original had as an object.
        "Pid": { "Pid": pid },
        "CNI": { "VethName": "", "NetName": "", "NetNS": "" },
        "Configs": {
            "Machine": {
                "CPU": record.cpus,
                "Mem": record.memory_mib,
                "VMLinux": record.kernel,
                "KernelArgs": record.kernel_args.join(" "),
            },
            "RunConfig": {
                "Daemonize": record.detached,
                "EnvVars": record.env,
                "From": record.image,
                "Hostname": record.hostname,
                "Name": record.name,
                "Ports": ports,
            },
        },
        "Drivers": [{
            "drive_id": "1",
            "is_read_only": true,
            "is_root_device": true,
            "partuuid": "",
            "path_on_host": record.image_disk,
        }],
        "NetworkInterfaces": interfaces,
        "Rootfs": { "Tag": record.image, "Type": "rootfs", "Labels": record.labels },
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn ours(instance: &Instance, machine: Option<&MachineRecord>) -> Value {
    json!({
        "Directory": instance.dir(),
        "Record": instance.record(),
        "Machine": machine,
    })
}

/// RFC 3339 with nanoseconds, as Docker writes it.
fn time(at: Timestamp) -> String {
    format!("{at:.9}")
}

/// The guest's IPv4 address and the length of its prefix.
fn ipv4(network: &NetworkRecord) -> Option<(&str, u32)> {
    network.addresses.iter().find_map(|cidr| {
        let (address, prefix) = cidr.split_once('/')?;
        let is_v4 = address.parse::<std::net::Ipv4Addr>().is_ok();
        is_v4.then_some((address, prefix.parse().ok()?))
    })
}

/// A prefix length as eight hexadecimal digits, as Go prints a mask.
pub(crate) fn mask(prefix: u32) -> String {
    let bits = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0);
    format!("{bits:08x}")
}

#[cfg(test)]
mod tests {
    use firebuild_vm::hardware::{RateLimiter, TokenBucket};
    use jiff::Timestamp;

    use super::{describe, mask};
    use crate::instance::testing::record;
    use crate::instance::{Ended, FORMAT, Instances, NetworkRecord, Started, State};
    use crate::paths::Paths;

    #[test]
    fn docker_and_the_original_are_both_answered() {
        let dir = tempfile::tempdir().unwrap();
        let instances = Instances::prepare(&Paths::under(dir.path())).unwrap();
        let mut record = record();
        record.argv = ["ep", "a", "c"].map(str::to_owned).to_vec();
        record.entrypoint_words = 2;
        record.network = NetworkRecord {
            mode: "user".to_owned(),
            addresses: vec!["fd00:fb::15/64".to_owned(), "10.0.2.15/24".to_owned()],
            gateway: Some("10.0.2.2".parse().unwrap()),
            publish: crate::run::publish::parse("8080:80").unwrap(),
            ..NetworkRecord::default()
        };
        record.metadata = true;
        record.interface_limits.rx = Some(RateLimiter {
            bandwidth: Some(TokenBucket {
                size: 1000,
                refill_time: 1,
                one_time_burst: None,
            }),
            ops: None,
        });
        let owned = instances.create(Some("web"), record).unwrap();
        let started = Started {
            format: FORMAT,
            started_at: Timestamp::from_second(1_800_000_000).unwrap(),
            boot_ms: 1,
        };
        let state = State::Exited(Ended {
            format: FORMAT,
            exit_code: 3,
            oom_killed: true,
            error: String::new(),
            finished_at: Timestamp::from_second(1_800_000_001).unwrap(),
        });
        let all = describe(owned.instance(), &state, Some(&started), None);
        for (pointer, expected) in [
            ("/State/Status", "\"exited\""),
            ("/State/Running", "false"),
            ("/State/ExitCode", "3"),
            ("/State/OOMKilled", "true"),
            ("/State/Pid", "0"),
            ("/State/Error", "\"\""),
            ("/State/StartedAt", "\"2027-01-15T08:00:00.000000000Z\""),
            ("/State/FinishedAt", "\"2027-01-15T08:00:01.000000000Z\""),
            ("/Path", "\"ep\""),
            ("/Args", "[\"a\",\"c\"]"),
            ("/Config/Cmd", "[\"c\"]"),
            ("/Config/Entrypoint", "[\"ep\",\"a\"]"),
            ("/Config/Env", "[\"PATH=***\"]"),
            ("/Name", "\"/web\""),
            ("/NetworkSettings/Ports/80~1tcp/0/HostPort", "\"8080\""),
            (
                "/NetworkInterfaces/0/StaticConfiguration/IPConfiguration/IP",
                "\"10.0.2.15\"",
            ),
            (
                "/NetworkInterfaces/0/StaticConfiguration/IPConfiguration/IPMask",
                "\"ffffff00\"",
            ),
            ("/NetworkInterfaces/0/AllowMMDS", "true"),
            ("/NetworkInterfaces/0/InRateLimiter/bandwidth/size", "1000"),
            ("/NetworkInterfaces/0/OutRateLimiter", "null"),
            ("/Pid/Pid", "0"),
            ("/Type", "\"run\""),
            ("/StartedAtUTC", "1800000000"),
        ] {
            let value = all.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"));
            assert_eq!(value.to_string(), expected, "{pointer}");
        }
    }

    #[test]
    fn masks() {
        for (prefix, expected) in [(0, "00000000"), (24, "ffffff00"), (32, "ffffffff")] {
            assert_eq!(mask(prefix), expected);
        }
    }
}
