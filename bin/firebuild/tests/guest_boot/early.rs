//! What goes wrong before there is a channel is told on the console, the only place that it can be told at.

use firebuild_guest_proto::RootLayout;

use super::guest::machine::{Machine, Parts};
use super::{busybox_initrd, config, kernel_or_skip};

#[test]
fn a_machine_without_its_file_systems_says_so_on_the_console() {
    let Some(kernel) = kernel_or_skip("a_machine_without_its_file_systems_says_so_on_the_console")
    else {
        return;
    };
    let mut extra = busybox_initrd();
    // No directory can be made there any more.
    extra.file("/sys", 0o644, b"");
    let parts = Parts {
        extra: Some(extra),
        ..Parts::default()
    };
    let console = Machine::start(kernel, config("exit 0", RootLayout::Initrd), parts).died();
    assert!(
        console.contains("vminit: error: cannot make the directory /sys"),
        "{console}"
    );
}
