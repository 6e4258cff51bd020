//! Repositories over SSH, with a real server and a real agent.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_e2e::servers::{self, Server, free_port};
use firebuild_e2e::{Home, missing, run, skip};

use crate::{LIMIT, SOON, builds, project};

#[test]
fn an_agent_opens_a_repository_over_ssh() {
    const NAME: &str = "an_agent_opens_a_repository_over_ssh";
    if let Some(tool) = missing(&["sshd", "ssh-agent", "ssh-add", "ssh-keygen", "git"]) {
        return skip(NAME, "tool:sshd", tool);
    }
    let home = Home::new();
    let (dir, _) = project(&home);
    let (server, user) = ssh_server(home.path());
    let socket = home.path().join("agent");
    let mut agent = Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while !socket.exists() && begin.elapsed() < SOON {
        std::thread::sleep(Duration::from_millis(10));
    }
    let added = run(
        Command::new("ssh-add")
            .arg(home.path().join("key"))
            .env("SSH_AUTH_SOCK", &socket),
        LIMIT,
    );
    let path = dir.join("app.git");
    let url = format!("ssh://{user}@127.0.0.1:{}{}", server.port, path.display());
    let ssh = format!("default={}", socket.display());
    let inline = format!("FROM scratch\nADD {url}#v1 /s/\n");
    let outcome = std::panic::catch_unwind(|| {
        let _ = added.ok();
        builds(
            &home,
            &["--ssh", &ssh, &format!("{url}#v1")],
            &["-rw-r--r-- a.txt"],
        );
        builds(
            &home,
            &[
                "--ssh",
                &ssh,
                "--dockerfile",
                &format!("git+{url}:/0.X/Dockerfile#v1"),
            ],
            &["-rw-r--r-- x/b.txt", "-rw-r--r-- x/c.txt"],
        );
        // With nothing but the agent of the environment a context can be had, and ADD cannot.
        let out = home
            .command(["build", &format!("{url}#main")])
            .env("SSH_AUTH_SOCK", &socket)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let store = home.path().join("home/store/git");
        let _ = fs_err::remove_dir_all(&store);
        let new = Home::new();
        let done = new.fb(["build", "--dockerfile-inline", &inline]).exits(1);
        assert!(done.err().contains("--ssh default"), "{}", done.err());
        let done = new.fb(["build", "--ssh", &ssh, "--dockerfile-inline", &inline]);
        let _ = done.ok();
    });
    let _ = agent.kill();
    let _ = agent.wait();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// An SSH server for the user of the test and a key, on loopback.
fn ssh_server(dir: &Path) -> (Server, String) {
    for name in ["hostkey", "key"] {
        let _ = run(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(dir.join(name)),
            LIMIT,
        )
        .ok();
    }
    let user = run(Command::new("id").arg("-un"), LIMIT)
        .ok()
        .out()
        .trim()
        .to_owned();
    let port = free_port();
    let at = |name: &str| dir.join(name).display().to_string();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n",
        at("hostkey"),
        at("key.pub"),
    );
    fs_err::write(dir.join("sshd_config"), config).unwrap();
    // As root, sshd wants its directory.
    let _ = fs_err::create_dir_all("/run/sshd");
    (servers::sshd(&dir.join("sshd_config"), port), user)
}
