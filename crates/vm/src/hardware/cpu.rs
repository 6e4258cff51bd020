//! Single bits of the processor that a guest sees: Firecracker's custom CPU templates
//! (`docs/cpu_templates/cpu-templates.md` of Firecracker), as far as they concern x86-64.
//!
//! Bitmaps say for each bit whether it is cleared (`0`), set (`1`) or left alone (`x`).

use serde::{Deserialize, Serialize};

/// Longest list of one kind; real templates have some forty entries.
const MOST_ENTRIES: usize = 4096;

/// Changes of the processor that the guest sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CpuConfig {
    /// Capabilities of KVM to ask for, as decimal numbers; with `!` in front, not to ask for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kvm_capabilities: Vec<String>,
    /// Changes of what CPUID gives.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpuid_modifiers: Vec<CpuidLeaf>,
    /// Changes of model specific registers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub msr_modifiers: Vec<MsrModifier>,
}

/// Changes of one leaf of CPUID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuidLeaf {
    /// Number of the leaf: hexadecimal (`0x…`), binary (`0b…`) or decimal.
    pub leaf: String,
    /// Number of the subleaf, written the same way.
    pub subleaf: String,
    /// KVM's flags for it (`struct kvm_cpuid_entry2`).
    pub flags: u32,
    /// What changes.
    pub modifiers: Vec<CpuidModifier>,
}

/// Changes of one register of a leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuidModifier {
    /// Which one.
    pub register: CpuidRegister,
    /// 32 bits of `0`, `1` and `x` behind `0b`.
    pub bitmap: String,
}

/// A register that CPUID gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuidRegister {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// Changes of one model specific register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MsrModifier {
    /// Its number: hexadecimal, binary or decimal.
    pub addr: String,
    /// 64 bits of `0`, `1` and `x` behind `0b`.
    pub bitmap: String,
}

impl CpuConfig {
    /// Checks what a VMM would refuse only after it was started.
    ///
    /// # Errors
    /// The first thing that is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let counts = [
            ("kvm_capabilities", self.kvm_capabilities.len()),
            ("cpuid_modifiers", self.cpuid_modifiers.len()),
            ("msr_modifiers", self.msr_modifiers.len()),
        ];
        if let Some((name, count)) = counts.iter().find(|(_, count)| *count > MOST_ENTRIES) {
            return Err(format!(
                "{name} has {count} entries, at most {MOST_ENTRIES} can be"
            ));
        }
        for capability in &self.kvm_capabilities {
            let digits = capability.strip_prefix('!').unwrap_or(capability);
            if digits.parse::<u32>().is_err() {
                return Err(format!(
                    "kvm_capabilities: {capability:?} is not a number, with or without ! in front"
                ));
            }
        }
        for leaf in &self.cpuid_modifiers {
            number("cpuid_modifiers: leaf", &leaf.leaf)?;
            number("cpuid_modifiers: subleaf", &leaf.subleaf)?;
            for modifier in &leaf.modifiers {
                bitmap("cpuid_modifiers: bitmap", &modifier.bitmap, 32)?;
            }
        }
        for modifier in &self.msr_modifiers {
            number("msr_modifiers: addr", &modifier.addr)?;
            bitmap("msr_modifiers: bitmap", &modifier.bitmap, 64)?;
        }
        Ok(())
    }
}

fn number(what: &str, text: &str) -> Result<(), String> {
    let parsed = if let Some(digits) = text.strip_prefix("0x") {
        u32::from_str_radix(digits, 16)
    } else if let Some(digits) = text.strip_prefix("0b") {
        u32::from_str_radix(digits, 2)
    } else {
        text.parse()
    };
    match parsed {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "{what} {text:?} is not a number of 32 bits: 0x1f, 0b101 or 31"
        )),
    }
}

fn bitmap(what: &str, text: &str, bits: usize) -> Result<(), String> {
    let marks: Vec<char> = text
        .strip_prefix("0b")
        .unwrap_or_default()
        .chars()
        .filter(|mark| *mark != '_')
        .collect();
    if marks.is_empty() || marks.len() > bits || !marks.iter().all(|mark| "01x".contains(*mark)) {
        return Err(format!(
            "{what} {text:?} is not 0b and up to {bits} of 0, 1 and x"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{CpuConfig, CpuidLeaf, CpuidModifier, CpuidRegister, MsrModifier};

    fn config() -> CpuConfig {
        CpuConfig {
            kvm_capabilities: vec!["121".to_owned(), "!56".to_owned()],
            cpuid_modifiers: vec![CpuidLeaf {
                leaf: "0x1".to_owned(),
                subleaf: "0".to_owned(),
                flags: 0,
                modifiers: vec![CpuidModifier {
                    register: CpuidRegister::Ecx,
                    bitmap: "0bxxxx_xxxx_xxxx_xxxx_xxxx_xxxx_xxxx_xx01".to_owned(),
                }],
            }],
            msr_modifiers: vec![MsrModifier {
                addr: "0x10a".to_owned(),
                bitmap: "0b1".to_owned(),
            }],
        }
    }

    #[test]
    fn what_is_right_passes() {
        config().check().unwrap();
        CpuConfig::default().check().unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        type Break = fn(&mut CpuConfig);
        let broken: [(&str, Break); 5] = [
            ("kvm_capabilities", |c| {
                c.kvm_capabilities[0] = "x".to_owned()
            }),
            ("leaf", |c| c.cpuid_modifiers[0].leaf = "0xg".to_owned()),
            ("subleaf", |c| c.cpuid_modifiers[0].subleaf = String::new()),
            ("bitmap", |c| {
                c.cpuid_modifiers[0].modifiers[0].bitmap = "01".to_owned()
            }),
            ("addr", |c| c.msr_modifiers[0].addr = "-1".to_owned()),
        ];
        for (word, break_it) in broken {
            let mut config = config();
            break_it(&mut config);
            let words = config.check().unwrap_err();
            assert!(words.contains(word), "{words}");
        }
    }

    #[test]
    fn fields_of_other_processors_are_refused() {
        let text = r#"{"reg_modifiers": []}"#;
        assert!(serde_json::from_str::<CpuConfig>(text).is_err());
    }
}
