//! A machine under a bare QEMU command, and the host's end of its channel on the plain multiplexer.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_guest_proto::{
    CHANNEL_PORT_NAME, CONFIG_PATH, Event, ExitRecord, GuestMessage, Hello, HostMessage, INIT_PATH,
    INITRD_DEVICES, Incoming, Limits, MODULES_DIR, Mux, Role, RunConfig, StreamId,
};

use crate::guest::initrd::Archive;
use crate::guest::kernel::Kernel;

/// Under emulation on a busy machine a boot takes some seconds; this is when something hangs.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a machine is made of, beside its kernel.
#[derive(Default)]
pub(crate) struct Parts {
    /// Files of the initrd beside those of the protocol.
    pub(crate) extra: Option<Archive>,
    /// Disks, each with its serial number and whether it is read-only.
    pub(crate) disks: Vec<(PathBuf, &'static str, bool)>,
    /// More arguments of QEMU.
    pub(crate) arguments: Vec<String>,
    /// Bytes that the guest finds in the channel before the protocol begins.
    pub(crate) garbage: Vec<u8>,
    /// No serial port, so that the kernel finds no console.
    pub(crate) without_console: bool,
}

/// A machine that runs.
pub(crate) struct Machine {
    qemu: Child,
    directory: tempfile::TempDir,
    socket: UnixStream,
    mux: Mux,
    started: Instant,
    /// Everything that the guest said, in order.
    pub(crate) messages: Vec<GuestMessage>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Whether stdout is read at all.
    pub(crate) reads_stdout: bool,
}

impl Machine {
    pub(crate) fn start(kernel: &Kernel, mut config: RunConfig, parts: Parts) -> Machine {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let mut archive = parts.extra.unwrap_or_default();
        for path in ["/dev", "/firebuild", MODULES_DIR] {
            archive.directory(path);
        }
        for device in INITRD_DEVICES {
            archive.device(device.path, device.mode, (device.major, device.minor));
        }
        archive.file(
            INIT_PATH,
            0o755,
            &fs_err::read(env!("VMINIT_PATH")).unwrap(),
        );
        for (name, content) in &kernel.modules {
            let path = format!("{MODULES_DIR}/{name}.ko");
            archive.file(&path, 0o644, content);
            config.modules.push(path);
        }
        let mut initrd = archive.finish();
        let mut second = Archive::default();
        initrd.extend(
            second
                .file(CONFIG_PATH, 0o600, &config.to_json().unwrap())
                .finish(),
        );
        fs_err::write(at("initrd"), initrd).unwrap();

        let listener = UnixListener::bind(at("channel")).unwrap();
        let mut command = Command::new("qemu-system-x86_64");
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ]);
        command.args([
            "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512", "-smp", "1",
        ]);
        fs_err::write(at("kernel"), &kernel.image).unwrap();
        command
            .arg("-kernel")
            .arg(at("kernel"))
            .arg("-initrd")
            .arg(at("initrd"));
        if parts.without_console {
            command.args(["-append", "quiet panic=-1 reboot=t 8250.nr_uarts=0"]);
        } else {
            command.args(["-append", "console=ttyS0 quiet panic=-1 reboot=t"]);
            command
                .arg("-serial")
                .arg(format!("file:{}", at("console").display()));
        }
        command.arg("-chardev").arg(format!(
            "socket,id=channel,path={}",
            at("channel").display()
        ));
        command.args(["-device", "virtio-serial-pci"]);
        command.arg("-device").arg(format!(
            "virtserialport,chardev=channel,name={CHANNEL_PORT_NAME}"
        ));
        for (index, (path, serial, read_only)) in parts.disks.iter().enumerate() {
            let read_only = if *read_only { "on" } else { "off" };
            let drive = format!(
                "if=none,id=d{index},format=raw,read-only={read_only},file={}",
                path.display()
            );
            command.arg("-drive").arg(drive);
            command
                .arg("-device")
                .arg(format!("virtio-blk-pci,drive=d{index},serial={serial}"));
        }
        command.args(&parts.arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs_err::File::create(at("qemu")).unwrap().into_parts().0);
        let started = Instant::now();
        let qemu = command.spawn().unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        socket.write_all(&parts.garbage).unwrap();
        socket.set_nonblocking(true).unwrap();
        Machine {
            qemu,
            directory,
            socket,
            mux: Mux::new(Role::Host, Limits::default()),
            started,
            messages: Vec::new(),
            stdout: Vec::new(),
            stderr: Vec::new(),
            reads_stdout: true,
        }
    }

    /// Drives the channel until something holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&Machine) -> bool) {
        loop {
            let moved = self.turn();
            if holds(self) {
                return;
            }
            if self.started.elapsed() > PATIENCE {
                panic!("{what} did not happen; {}", self.story());
            }
            if let Some(status) = self.qemu.try_wait().unwrap()
                && !moved
            {
                panic!(
                    "the machine ended ({status}) before {what}; {}",
                    self.story()
                );
            }
            if !moved {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Waits for the exit record, acknowledges it, and waits for the machine's end.
    pub(crate) fn finish(&mut self) -> ExitRecord {
        self.until("the exit record", |machine| machine.exit().is_some());
        let record = self.exit().unwrap().clone();
        assert_eq!(
            self.mux.peek(StreamId::STDOUT),
            Incoming::Ended,
            "the record comes last"
        );
        assert_eq!(
            self.mux.peek(StreamId::STDERR),
            Incoming::Ended,
            "the record comes last"
        );
        assert!(
            self.qemu.try_wait().unwrap().is_none(),
            "the machine waits for the acknowledgement"
        );
        self.send(&HostMessage::ExitAck);
        let acknowledged = Instant::now();
        while self.qemu.try_wait().unwrap().is_none() {
            self.turn();
            assert!(
                acknowledged.elapsed() < PATIENCE,
                "the machine did not end; {}",
                self.story()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        record
    }

    /// The machine's end without any acknowledgement, and how long it took.
    pub(crate) fn abandon(mut self) -> Duration {
        let left = Instant::now();
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
        while self.qemu.try_wait().unwrap().is_none() {
            assert!(left.elapsed() < PATIENCE, "the machine did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        left.elapsed()
    }

    /// Waits for the end of a machine that has nothing to say on the channel; what its console shows.
    pub(crate) fn died(mut self) -> String {
        while self.qemu.try_wait().unwrap().is_none() {
            assert!(
                self.started.elapsed() < PATIENCE,
                "the machine did not end; {}",
                self.story()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        self.console()
    }

    pub(crate) fn send(&mut self, message: &HostMessage) {
        self.mux.send_control(&message.encode().unwrap()).unwrap();
    }

    /// Gives bytes to the application's stdin, all of them.
    pub(crate) fn write_stdin(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.mux.write(StreamId::STDIN, bytes).unwrap();
            bytes = &bytes[taken..];
            self.turn();
        }
    }

    pub(crate) fn end_stdin(&mut self) {
        self.mux.end(StreamId::STDIN);
    }

    pub(crate) fn exit(&self) -> Option<&ExitRecord> {
        self.messages.iter().find_map(|message| match message {
            GuestMessage::Exit(record) => Some(record),
            _ => None,
        })
    }

    pub(crate) fn has_started(&self) -> bool {
        self.messages
            .iter()
            .any(|message| matches!(message, GuestMessage::Started { .. }))
    }

    /// How much of stdout has come and is not read.
    pub(crate) fn stdout_waiting(&self) -> usize {
        match self.mux.peek(StreamId::STDOUT) {
            Incoming::Bytes(bytes) => bytes.len(),
            Incoming::Pending | Incoming::Ended => 0,
        }
    }

    pub(crate) fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn console(&self) -> String {
        let bytes = fs_err::read(self.directory.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// All that is known, for a failure.
    pub(crate) fn story(&self) -> String {
        let qemu = fs_err::read_to_string(self.directory.path().join("qemu")).unwrap_or_default();
        format!(
            "messages: {:#?}\nstdout: {}\nstderr: {}\nconsole: {}\nqemu: {qemu}",
            self.messages,
            self.stdout_text().chars().take(2000).collect::<String>(),
            String::from_utf8_lossy(&self.stderr),
            self.console(),
        )
    }

    fn turn(&mut self) -> bool {
        let mut moved = false;
        let mut buffer = vec![0; 256 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(count) if count > 0 => {
                self.mux.receive(&buffer[..count]).unwrap();
                moved = true;
            }
            Ok(_) => {}
            Err(error) => assert!(
                matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::ConnectionReset
                ),
                "{error}"
            ),
        }
        while let Some(event) = self.mux.next_event() {
            let Event::Control(bytes) = event else {
                panic!("{event:?}")
            };
            let message = GuestMessage::decode(&bytes).unwrap();
            if let GuestMessage::Hello(_) = message {
                let now = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap();
                let ours = Hello::new(Vec::new(), u64::try_from(now.as_nanos()).ok());
                self.send(&HostMessage::Hello(ours));
            }
            self.messages.push(message);
        }
        if self.reads_stdout {
            moved |= take(&mut self.mux, StreamId::STDOUT, &mut self.stdout);
        }
        moved |= take(&mut self.mux, StreamId::STDERR, &mut self.stderr);
        let output = self.mux.output();
        if !output.is_empty()
            && let Ok(count) = self.socket.write(output)
        {
            self.mux.written(count);
            moved = true;
        }
        moved
    }
}

fn take(mux: &mut Mux, id: StreamId, into: &mut Vec<u8>) -> bool {
    let Incoming::Bytes(bytes) = mux.peek(id) else {
        return false;
    };
    into.extend_from_slice(bytes);
    let count = bytes.len();
    mux.consume(id, count);
    true
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
