//! Whether this host has the huge pages that a machine is made of.

use firebuild_vm::VmSpec;
use firebuild_vm::hardware::HugePages;

use crate::error::Error;
use crate::run::{RunError, RunErrorKind};

/// Pages of 2 MiB as the kernel counts them (`admin-guide/mm/hugetlbpage.rst`).
const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Refuses a machine for which there are not enough of them. What VMMs say then names neither the pages nor the remedy:
/// Firecracker cannot read the kernel into them.
pub(super) fn enough(spec: &VmSpec) -> Result<(), RunError> {
    if spec.hardware.huge_pages != HugePages::TwoMib {
        return Ok(());
    }
    // A kernel without them has no such files.
    let count = |name: &str| {
        let text = fs_err::read_to_string(format!("{PAGES}/{name}"));
        text.ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    };
    lacking(u64::from(spec.memory_mib).div_ceil(2), count)
        .map_or(Ok(()), |text| Err(Error::new(RunErrorKind::Launch, text)))
}

/// What is wrong with this number of pages, if something is.
fn lacking(wanted: u64, count: impl Fn(&str) -> u64) -> Option<String> {
    let more = count("nr_overcommit_hugepages").saturating_sub(count("surplus_hugepages"));
    let free = count("free_hugepages").saturating_sub(count("resv_hugepages"));
    let had = free + more;
    (had < wanted).then(|| {
        let enough = count("nr_hugepages") + wanted - had;
        format!(
            "the machine takes {wanted} huge pages of 2 MiB, and this host has {had} left: 'sysctl vm.nr_hugepages={enough}' \
             makes as many, if there is memory for them in one piece"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::lacking;

    #[test]
    fn pages_that_others_have_or_may_get_are_counted() {
        let host = |name: &str| match name {
            "nr_hugepages" => 100,
            "free_hugepages" => 70,
            "resv_hugepages" => 20,
            "nr_overcommit_hugepages" => 12,
            "surplus_hugepages" => 2,
            _ => 0,
        };
        assert_eq!(lacking(60, host), None);
        let told = lacking(64, host).unwrap();
        assert!(
            told.contains("takes 64 huge pages of 2 MiB, and this host has 60 left")
                && told.contains("vm.nr_hugepages=104"),
            "{told}"
        );
        assert!(lacking(1, |_| 0).is_some());
    }
}
