//! Running programs with a time limit.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a program ended.
#[derive(Debug)]
pub struct Done {
    /// Its exit code; 128 and the signal if one ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Done {
    /// Standard output as text.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Insists on exit code 0.
    ///
    /// # Panics
    /// With all the output when it is another one.
    #[must_use]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Insists on an exit code.
    ///
    /// # Panics
    /// With all the output when it is another one.
    #[must_use]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            code,
            "exit code\n--- stdout\n{}\n--- stderr\n{}",
            self.out(),
            self.err()
        );
        self
    }
}

/// The program under test.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn firebuild() -> PathBuf {
    if let Some(path) = std::env::var_os("FIREBUILD_BIN") {
        return path.into();
    }
    let exe = std::env::current_exe().expect("a test knows where it is");
    // target/<profile>/deps/<test>
    let profile = exe
        .ancestors()
        .nth(2)
        .expect("tests live in target/<profile>/deps");
    let target = profile
        .parent()
        .expect("a profile directory is in the target directory");
    for candidate in [target.join("release/firebuild"), profile.join("firebuild")] {
        if candidate.is_file() {
            return candidate;
        }
    }
    panic!("firebuild is not built: run `cargo build --release` first");
}

/// Runs a command to its end, at most `limit`; it is killed then, and the test fails.
///
/// # Panics
/// When it cannot be started or does not end in time.
#[must_use]
pub fn run(command: &mut Command, limit: Duration) -> Done {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let begin = Instant::now();
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            break status;
        }
        if begin.elapsed() > limit {
            let _ = kill(&mut child);
            let (out, err) = (join(stdout), join(stderr));
            panic!(
                "{command:?} did not end within {limit:?}\n--- stdout\n{}\n--- stderr\n{}",
                String::from_utf8_lossy(&out),
                String::from_utf8_lossy(&err)
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let elapsed = begin.elapsed();
    use std::os::unix::process::ExitStatusExt as _;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Done {
        code,
        stdout: join(stdout),
        stderr: join(stderr),
        elapsed,
    }
}

fn kill(child: &mut Child) -> std::io::Result<()> {
    child.kill()?;
    child.wait().map(|_| ())
}

fn reader(stream: Option<impl std::io::Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn join(reader: JoinHandle<Vec<u8>>) -> Vec<u8> {
    reader.join().unwrap_or_default()
}
