//! What a step may not do.

use std::path::Path;

use firebuild_build::graph::SecurityMode;

use crate::base::{Base, run, shell};
use crate::user::Who;

pub(super) fn capabilities_and_calls(directory: &Path, who: Who) {
    let base = Base::new(directory);
    let script = "grep -E '^(CapBnd|CapEff|CapInh|CapAmb|Seccomp):' /proc/self/status; \
         mount -t tmpfs x /tmp 2> /dev/null || echo no mount; umount /proc 2> /dev/null || echo no umount; \
         unshare -m true 2> /dev/null || echo no unshare; \
         echo 1 > /proc/sys/kernel/panic 2> /dev/null || echo no sysctl; touch /sys/x 2> /dev/null || echo no sys; \
         cat /proc/timer_list /proc/keys | wc -c; hostname x 2> /dev/null || echo no hostname";
    let ran = base.sh(script);
    assert_eq!(
        ran.ok(),
        "CapInh:\t0000000000000000\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\n\
         Seccomp:\t2\nno mount\nno umount\nno unshare\nno sysctl\nno sys\n0\nno hostname\n"
    );
    let mut step = shell("grep ^Seccomp: /proc/self/status; mount -t tmpfs x /tmp && echo mounted");
    step.security = SecurityMode::Insecure;
    let ran = run(&base.sandbox(), &base.chain, &step).unwrap();
    assert_eq!(ran.ok(), "Seccomp:\t0\nmounted\n", "as {who:?}");
    assert_eq!(ran.changes(), "");
}

pub(super) fn set_id_programs_work(directory: &Path, _: Who) {
    let base = Base::new(directory);
    // A copy of busybox under a name that keeps its privilege, by its own rules: `su` is one.
    let ran = base.sh("cp /bin/busybox /bin/su; chmod 4755 /bin/su; echo 'root::0:0:root:/root:/bin/sh' > /etc/passwd");
    ran.ok();
    let after = base.after(&base.chain, &ran);
    let mut step = shell("id -u; /bin/su -c 'id -u' root");
    step.user = "1000".into();
    let ran = run(&base.sandbox(), &after, &step).unwrap();
    assert_eq!(ran.ok(), "1000\n0\n", "{}", ran.stderr);
}

pub(super) fn devices_that_a_step_makes_do_not_open(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let script = "for d in /tmp /dev /dev/shm /srv; do mknod $d/mine c 1 5; head -c 1 $d/mine 2> /dev/null && echo open $d; done; \
         head -c 1 /srv/node 2> /dev/null && echo open node; echo done";
    assert_eq!(base.sh(script).ok(), "done\n");
}

pub(super) fn the_host_is_out_of_reach(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let ran = base.sh(
        "grep -c . /proc/self/mountinfo > /dev/null; ls /proc/1/root/; ls /proc/self/fd; cat /proc/self/environ | tr '\\0' '\\n'; \
         cat /proc/self/cgroup > /dev/null; ls /../../etc",
    );
    let text = ran.ok();
    // The program's own three streams, and what `ls` has opened.
    assert!(
        text.contains("tmp\n0\n1\n2\n3\nSHLVL=1\nHOME=/root\nPATH=/bin\nPWD=/\n"),
        "{text}"
    );
    assert!(!text.contains("home\n"), "{text}");
    assert!(
        text.ends_with("group\nhosts\npasswd\nresolv.conf\n"),
        "{text}"
    );
}
