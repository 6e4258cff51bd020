//! `SOURCE_DATE_EPOCH` from contexts and stages.

use std::process::Command;

use firebuild_e2e::servers::{git_daemon, web};
use firebuild_e2e::{Home, missing, run, skip};

use crate::{LIMIT, project};

#[test]
fn times_of_contexts_and_stages() {
    if let Some(tool) = missing(&["git", "python3", "touch"]) {
        return skip("times_of_contexts_and_stages", "tool:git", tool);
    }
    let home = Home::new();
    let (dir, _) = project(&home);
    let daemon = git_daemon(&dir);
    let site = home.context(
        "site",
        &[("Dockerfile", b"FROM scratch\nLABEL a=b\n"), ("f", b"f")],
    );
    for (file, time) in [("Dockerfile", "@1500000000"), ("f", "@1400000000")] {
        let _ = run(
            Command::new("touch")
                .args(["-d", time])
                .arg(site.join(file)),
            LIMIT,
        )
        .ok();
    }
    let server = web(&site);
    let repo = format!("git://127.0.0.1:{}/app.git", daemon.port);
    let web = |name: &str| format!("http://127.0.0.1:{}/{name}", server.port);
    let named = format!("named={repo}");
    let stage = format!(
        "FROM scratch AS when\nARG F=f\nADD {} /\nFROM scratch\nLABEL a=b\n",
        web("${F}")
    );
    let global = format!("ARG SOURCE_DATE_EPOCH=when\n{stage}");
    let context = ["--build-arg", "SOURCE_DATE_EPOCH=context"];
    let created = |args: &[&str]| {
        let mut all = vec!["build", "-t", "t/t:1"];
        all.extend(args);
        let _ = home.fb(all).ok();
        let config = home.fb(["image", "config", "t/t:1"]).ok();
        let config: serde_json::Value = serde_json::from_slice(&config.stdout).unwrap();
        config["created"].as_str().unwrap_or_default().to_owned()
    };
    let commit = "2022-04-15T05:20:00Z";
    assert_eq!(created(&[context[0], context[1], &repo]), commit);
    assert_eq!(
        created(&[context[0], context[1], &web("Dockerfile")]),
        "2017-07-14T02:40:00Z"
    );
    let inline = ["--dockerfile-inline", "FROM scratch\nLABEL c=d\n"];
    assert_eq!(
        created(&[
            "--build-arg",
            "SOURCE_DATE_EPOCH=named",
            "--build-context",
            &named,
            inline[0],
            inline[1]
        ]),
        commit
    );
    let f = "2014-05-13T16:53:20Z";
    assert_eq!(
        created(&[
            "--build-arg",
            "SOURCE_DATE_EPOCH=when",
            "--dockerfile-inline",
            &stage
        ]),
        f
    );
    assert_eq!(created(&["--dockerfile-inline", &global]), f);
    let done = home
        .fb([
            "build",
            "--build-arg",
            "SOURCE_DATE_EPOCH=nobody",
            inline[0],
            inline[1],
        ])
        .exits(1);
    assert!(
        done.err().contains("invalid SOURCE_DATE_EPOCH"),
        "{}",
        done.err()
    );
    let two = stage
        .replace("FROM scratch\nLABEL", "FROM when\nLABEL")
        .replace(" AS when", " AS when\nLABEL x=y");
    let done = home
        .fb([
            "build",
            "--build-arg",
            "SOURCE_DATE_EPOCH=when",
            "--dockerfile-inline",
            &two,
        ])
        .exits(1);
    assert!(
        done.err().contains("invalid SOURCE_DATE_EPOCH"),
        "{}",
        done.err()
    );
}
