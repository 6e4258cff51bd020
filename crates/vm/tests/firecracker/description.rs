//! Our requests beside the description of Firecracker's API: every field that we send is in it, and every field that it
//! requires is sent.

use std::collections::{BTreeMap, BTreeSet};

use firebuild_vm::backend::firecracker::requests::{
    ActionType, BootSource, Drive, EntropyDevice, Fault, InstanceActionInfo, MachineConfiguration,
    MetricsDestination, MmdsConfig, NetworkInterface, SerialDevice, Vm, VmState, Vsock,
};
use firebuild_vm::hardware::{
    Balloon, Cache, CpuConfig, CpuTemplate, HugePages, IoEngine, RateLimiter, TokenBucket,
};
use firebuild_vm::spec::MmdsVersion;
use serde_json::{Value, json, to_value};

/// A definition: its properties and which of them are required.
#[derive(Debug, Default)]
struct Definition {
    properties: BTreeSet<String>,
    required: BTreeSet<String>,
}

/// The definitions of a description, by its indentation: this is as much of YAML as the file has.
fn definitions(text: &str) -> BTreeMap<String, Definition> {
    let mut found: BTreeMap<String, Definition> = BTreeMap::new();
    let (mut name, mut section) = (None, "");
    let lines = text
        .lines()
        .skip_while(|line| *line != "definitions:")
        .skip(1);
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let indent = line.len() - line.trim_start().len();
        let word = line.trim().trim_end_matches(':');
        match indent {
            0 => break,
            2 => {
                name = Some(word.to_owned());
                section = "";
                found.entry(word.to_owned()).or_default();
            }
            4 if line.trim().ends_with(':') => {
                section = match word {
                    "required" => "required",
                    "properties" => "properties",
                    _ => "",
                }
            }
            4 => section = "",
            6 => {
                let definition = name.as_ref().and_then(|name| found.get_mut(name));
                let Some(definition) = definition else {
                    continue;
                };
                match section {
                    "required" => {
                        let word = word.trim_start_matches("- ").to_owned();
                        definition.required.insert(word);
                    }
                    "properties" if line.trim().ends_with(':') => {
                        definition.properties.insert(word.to_owned());
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    found
}

fn fields(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

/// Each of our types with every field that it can have, beside the name of its definition.
fn ours() -> Vec<(&'static str, Value)> {
    let bucket = TokenBucket {
        size: 1,
        refill_time: 1,
        one_time_burst: Some(1),
    };
    let limiter = RateLimiter {
        bandwidth: Some(bucket),
        ops: Some(bucket),
    };
    let text = || "x".to_owned();
    let cpu = r#"{"kvm_capabilities": ["1"],
        "cpuid_modifiers": [{"leaf": "0x0", "subleaf": "0x0", "flags": 0,
                             "modifiers": [{"register": "eax", "bitmap": "0b1"}]}],
        "msr_modifiers": [{"addr": "0x0", "bitmap": "0b1"}]}"#;
    let cpu: CpuConfig = serde_json::from_str(cpu).unwrap();
    let cpu = to_value(cpu).unwrap();
    vec![
        (
            "MachineConfiguration",
            to_value(MachineConfiguration {
                vcpu_count: 1,
                mem_size_mib: 1,
                smt: true,
                cpu_template: Some(CpuTemplate::T2),
                huge_pages: Some(HugePages::TwoMib),
            })
            .unwrap(),
        ),
        (
            "BootSource",
            to_value(BootSource {
                kernel_image_path: text(),
                initrd_path: text(),
                boot_args: text(),
            })
            .unwrap(),
        ),
        (
            "Drive",
            to_value(Drive {
                drive_id: text(),
                path_on_host: text(),
                is_root_device: false,
                is_read_only: true,
                cache_type: Some(Cache::Writeback),
                io_engine: Some(IoEngine::Async),
                rate_limiter: Some(limiter.clone()),
            })
            .unwrap(),
        ),
        (
            "NetworkInterface",
            to_value(NetworkInterface {
                iface_id: text(),
                host_dev_name: text(),
                guest_mac: text(),
                mtu: Some(1500),
                rx_rate_limiter: Some(limiter.clone()),
                tx_rate_limiter: Some(limiter.clone()),
            })
            .unwrap(),
        ),
        (
            "Vsock",
            to_value(Vsock {
                guest_cid: 3,
                uds_path: text(),
            })
            .unwrap(),
        ),
        (
            "EntropyDevice",
            to_value(EntropyDevice {
                rate_limiter: Some(limiter.clone()),
            })
            .unwrap(),
        ),
        (
            "MmdsConfig",
            to_value(MmdsConfig {
                version: MmdsVersion::V2,
                network_interfaces: vec![text()],
                imds_compat: true,
            })
            .unwrap(),
        ),
        (
            "SerialDevice",
            to_value(SerialDevice {
                rate_limiter: Some(bucket),
            })
            .unwrap(),
        ),
        (
            "Metrics",
            to_value(MetricsDestination {
                metrics_path: text(),
                emit_id: true,
                properties: [(text(), text())].into(),
            })
            .unwrap(),
        ),
        (
            "Balloon",
            to_value(Balloon {
                amount_mib: 1,
                deflate_on_oom: true,
                stats_polling_interval_s: 1,
                free_page_hinting: true,
                free_page_reporting: true,
            })
            .unwrap(),
        ),
        (
            "InstanceActionInfo",
            to_value(InstanceActionInfo {
                action_type: ActionType::InstanceStart,
            })
            .unwrap(),
        ),
        (
            "Vm",
            to_value(Vm {
                state: VmState::Paused,
            })
            .unwrap(),
        ),
        (
            "Error",
            to_value(Fault {
                fault_message: text(),
            })
            .unwrap(),
        ),
        ("RateLimiter", to_value(&limiter).unwrap()),
        ("TokenBucket", to_value(bucket).unwrap()),
        ("CpuConfig", cpu.clone()),
        ("CpuidLeafModifier", cpu["cpuid_modifiers"][0].clone()),
        (
            "CpuidRegisterModifier",
            cpu["cpuid_modifiers"][0]["modifiers"][0].clone(),
        ),
        ("MsrModifier", cpu["msr_modifiers"][0].clone()),
    ]
}

#[test]
fn the_fields_of_requests_are_those_of_the_description() {
    let test = "the_fields_of_requests_are_those_of_the_description";
    let Some(path) = std::env::var_os("FIREBUILD_FIRECRACKER_API").filter(|path| !path.is_empty())
    else {
        eprintln!("SKIP {test}: FIREBUILD_FIRECRACKER_API names no file");
        return;
    };
    let text = fs_err::read_to_string(std::path::PathBuf::from(path)).unwrap();
    let definitions = definitions(&text);
    assert!(
        definitions.len() > 20,
        "the file is no description of an API"
    );
    for (name, value) in ours() {
        let theirs = definitions
            .get(name)
            .unwrap_or_else(|| panic!("there is no definition {name}"));
        let fields = fields(&value);
        let unknown: Vec<_> = fields.difference(&theirs.properties).collect();
        assert!(unknown.is_empty(), "{name} has no {unknown:?}");
        let missing: Vec<_> = theirs.required.difference(&fields).collect();
        assert!(missing.is_empty(), "{name} requires {missing:?}");
    }
    // Values that are one of a few are theirs, too.
    let enums = [
        "InstanceStart",
        "SendCtrlAltDel",
        "FlushMetrics",
        "Paused",
        "Resumed",
        "Unsafe",
        "Writeback",
        "Sync",
        "Async",
        "V1",
        "V2",
        "2M",
        "Transparent",
        "C3",
        "T2",
        "T2S",
        "T2CL",
        "T2A",
    ];
    for word in enums {
        let known = text.contains(&format!("- {word}\n")) || text.contains(&format!("\"{word}\""));
        assert!(known, "{word}");
    }
}

#[test]
fn a_description_is_read_by_its_indentation() {
    let text = "paths:\n  /x:\n    put:\ndefinitions:\n  A:\n    type: object\n    required:\n      - one\n    \
                properties:\n      one:\n        type: string\n      two:\n        $ref: \"#/definitions/B\"\n  B:\n    \
                type: string\n";
    let found = definitions(text);
    assert_eq!(found.len(), 2);
    assert_eq!(fields(&json!({"one": 1, "two": 2})), found["A"].properties);
    assert_eq!(fields(&json!({"one": 1})), found["A"].required);
}
