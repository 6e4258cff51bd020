//! The thin thread through every crate: `FROM scratch`, a static program, an ext4 image, a VM, its streams and exit code.

use firebuild_e2e::{Home, missing, skip, static_program};

#[test]
fn from_a_dockerfile_to_streams_and_exit_code() {
    let name = "from_a_dockerfile_to_streams_and_exit_code";
    if let Some(program) = missing(&["qemu-system-x86_64", "e2fsck"]) {
        return skip(name, "vm", &format!("{program} is not installed"));
    }
    let (Some(home), Some(busybox)) = (Home::with_kernel(), static_program()) else {
        return skip(name, "vm", "no kernel package or no static busybox");
    };
    let dockerfile = b"FROM scratch\n\
        COPY --chmod=0755 busybox /bin/sh\n\
        ENV GREETING=hello\n\
        WORKDIR /srv\n\
        ENTRYPOINT [\"/bin/sh\", \"-c\"]\n\
        CMD [\"pwd; echo out-$GREETING; echo err-$GREETING >&2; cat; exit 7\"]\n";
    let context = home.context("ctx", &[("Dockerfile", dockerfile), ("busybox", &busybox)]);
    let built = home.build("test/thread:1", &context).ok();
    assert!(built.out().contains("test/thread:1"), "{}", built.out());

    // The same again executes nothing.
    let again = home.build("test/thread:1", &context).ok();
    assert_eq!(again.out(), built.out());
    assert!(!again.err().contains(" DONE 1"), "{}", again.err());

    let mut command = home.command(["run", "--rm", "-i", "test/thread:1"]);
    let input = home.path().join("input");
    fs_err::write(&input, "from stdin\n").unwrap();
    command.stdin(fs_err::File::open(&input).unwrap().into_parts().0);
    let done = firebuild_e2e::run(&mut command, std::time::Duration::from_secs(120)).exits(7);
    assert_eq!(done.out(), "/srv\nout-hello\nfrom stdin\n");
    assert_eq!(done.err(), "err-hello\n");
    assert_eq!(home.fb(["ls", "-a", "-q"]).ok().out(), "");
}
