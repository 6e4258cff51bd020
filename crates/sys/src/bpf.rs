//! A program of the kernel's own virtual machine that chooses who takes new connections: `bpf(2)`,
//! `Documentation/bpf/prog_sk_lookup.rst`.
#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

// Commands and constants of `linux/bpf.h`.
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_MAP_TYPE_SOCKMAP: u32 = 15;
const BPF_PROG_TYPE_SK_LOOKUP: u32 = 30;
const BPF_SK_LOOKUP: u32 = 36;
const BPF_PSEUDO_MAP_FD: u8 = 1;
const BPF_FUNC_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_FUNC_SK_RELEASE: i32 = 86;
const BPF_FUNC_SK_ASSIGN: i32 = 124;
const SK_DROP: i32 = 0;
const SK_PASS: i32 = 1;

// Opcodes: class, operation and source in one byte.
const LOAD_64: u8 = 0x18;
const LOAD_WORD: u8 = 0x61;
const STORE_WORD: u8 = 0x62;
const ADD: u8 = 0x07;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const JUMP_IF_NOT_EQUAL: u8 = 0x56;
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_IF_NULL: u8 = 0x15;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

// Where `struct bpf_sk_lookup` has what the program looks at.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_PORT: i16 = 60;
const INGRESS_IFINDEX: i16 = 64;

/// In the network namespace `namespace`, new TCP connections to the address `to` go to `listener`, wherever that one is bound
/// and whoever else listens at that address or all addresses. `to.ip()` has to be one of the namespace's own. Nobody gets
/// there, to no port of it, through the links with the indices `closed`. It lasts as long as the descriptor that is given.
///
/// # Errors
/// `ENOSYS`, `EINVAL` for a kernel without such programs (before 5.17, or built without `CONFIG_BPF_SYSCALL`), `EPERM`
/// without the capabilities or for a locked-down kernel, `EOPNOTSUPP` for a socket that does not listen.
pub fn steer(
    to: SocketAddrV4,
    listener: BorrowedFd<'_>,
    closed: &[u32],
    namespace: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let sockets = socket_map(listener)?;
    let program = load(&instructions(to, &sockets, closed))?;
    let attributes = LinkCreate {
        prog_fd: program.as_raw_fd().unsigned_abs(),
        target_fd: namespace.as_raw_fd().unsigned_abs(),
        attach_type: BPF_SK_LOOKUP,
        flags: 0,
    };
    // SAFETY: the attributes are those of this command, and hold no pointer.
    let link = unsafe { bpf(BPF_LINK_CREATE, &attributes) }?;
    // SAFETY: the kernel has made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// A map whose entry 0 is the socket.
fn socket_map(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attributes = MapCreate {
        map_type: BPF_MAP_TYPE_SOCKMAP,
        key_size: 4,
        value_size: 8,
        max_entries: 1,
        map_flags: 0,
    };
    // SAFETY: the attributes are those of this command, and hold no pointer.
    let map = unsafe { bpf(BPF_MAP_CREATE, &attributes) }?;
    // SAFETY: the kernel has made this descriptor for us alone.
    let map = unsafe { OwnedFd::from_raw_fd(map) };
    let key = 0u32;
    let value = u64::from(listener.as_raw_fd().unsigned_abs());
    let attributes = MapUpdate {
        map_fd: map.as_raw_fd().unsigned_abs(),
        padding: 0,
        key: (&raw const key) as u64,
        value: (&raw const value) as u64,
        flags: 0,
    };
    // SAFETY: the attributes are those of this command; key and value have the sizes of the map and live through the call.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attributes) }?;
    Ok(map)
}

fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_SK_LOOKUP,
        insn_cnt: u32::try_from(instructions.len()).expect("a short program"),
        insns: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: [0; 16],
        prog_ifindex: 0,
        expected_attach_type: BPF_SK_LOOKUP,
    };
    // SAFETY: the attributes are those of this command; instructions and licence, as long as they say, live through the call.
    let program = unsafe { bpf(BPF_PROG_LOAD, &attributes) }?;
    // SAFETY: the kernel has made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

/// The program: registers 6 and 7 keep the context and the socket; helpers take registers 1 to 3 and give register 0.
fn instructions(to: SocketAddrV4, sockets: &OwnedFd, closed: &[u32]) -> Vec<Instruction> {
    let mut code = Code::default();
    code.add(MOVE_REGISTER, 6, 1, 0, 0);
    let address = i32::from_ne_bytes(to.ip().octets());
    for (field, expected) in [(FAMILY, libc::AF_INET), (PROTOCOL, libc::IPPROTO_TCP)] {
        code.add(LOAD_WORD, 2, 6, field, 0);
        code.jump(JUMP_IF_NOT_EQUAL, 2, expected, Target::Pass);
    }
    code.add(LOAD_WORD, 2, 6, LOCAL_IP4, 0);
    code.jump(JUMP_IF_NOT_EQUAL, 2, address, Target::Pass);
    code.add(LOAD_WORD, 2, 6, INGRESS_IFINDEX, 0);
    for index in closed {
        code.jump(JUMP_IF_EQUAL, 2, index.cast_signed(), Target::Drop);
    }
    code.add(LOAD_WORD, 2, 6, LOCAL_PORT, 0);
    code.jump(JUMP_IF_NOT_EQUAL, 2, to.port().into(), Target::Pass);
    // The key 0 on the stack, then the socket.
    code.add(STORE_WORD, 10, 0, -4, 0);
    code.add(LOAD_64, 1, BPF_PSEUDO_MAP_FD, 0, sockets.as_raw_fd());
    code.add(0, 0, 0, 0, 0);
    code.add(MOVE_REGISTER, 2, 10, 0, 0);
    code.add(ADD, 2, 0, 0, -4);
    code.add(CALL, 0, 0, 0, BPF_FUNC_MAP_LOOKUP_ELEM);
    code.jump(JUMP_IF_NULL, 0, 0, Target::Drop);
    code.add(MOVE_REGISTER, 7, 0, 0, 0);
    code.add(MOVE_REGISTER, 1, 6, 0, 0);
    code.add(MOVE_REGISTER, 2, 7, 0, 0);
    code.add(MOVE, 3, 0, 0, 0);
    code.add(CALL, 0, 0, 0, BPF_FUNC_SK_ASSIGN);
    code.add(MOVE_REGISTER, 1, 7, 0, 0);
    code.add(CALL, 0, 0, 0, BPF_FUNC_SK_RELEASE);
    code.finish()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    /// The end of the program: who listens there gets it.
    Pass,
    /// Nobody gets it.
    Drop,
}

/// A program as it grows.
#[derive(Default)]
struct Code {
    instructions: Vec<Instruction>,
    /// Jumps to both ends, by their place.
    jumps: Vec<(usize, Target)>,
}

impl Code {
    fn add(&mut self, code: u8, destination: u8, source: u8, offset: i16, immediate: i32) {
        self.instructions.push(Instruction {
            code,
            registers: destination | source << 4,
            offset,
            immediate,
        });
    }

    fn jump(&mut self, code: u8, register: u8, immediate: i32, target: Target) {
        self.jumps.push((self.instructions.len(), target));
        self.add(code, register, 0, 0, immediate);
    }

    fn finish(mut self) -> Vec<Instruction> {
        let pass = self.instructions.len();
        for verdict in [SK_PASS, SK_DROP] {
            self.add(MOVE, 0, 0, 0, verdict);
            self.add(EXIT, 0, 0, 0, 0);
        }
        for (from, target) in self.jumps {
            let to = if target == Target::Pass {
                pass
            } else {
                pass + 2
            };
            self.instructions[from].offset = i16::try_from(to - from - 1).expect("a short program");
        }
        self.instructions
    }
}

/// `struct bpf_insn`.
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

// The parts of `union bpf_attr` that are used, each as long as it was when these programs came.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// # Safety
/// `attributes` are those of the command, laid out as the kernel has them, and what they point to lives through the call.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads as many bytes as it is told, which is all of `attributes`; the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::steer;
    use crate::net::{add_host_address, link_index, link_up};
    use crate::testing::in_own_network;

    #[test]
    fn connections_go_where_they_are_steered() {
        let name = "connections_go_where_they_are_steered";
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP {name}: needs root");
            return;
        }
        in_own_network(name, || {
            let address = Ipv4Addr::new(169, 254, 169, 254);
            link_up("lo").unwrap();
            add_host_address("lo", address).unwrap();
            let listener = TcpListener::bind((address, 1)).unwrap();
            listener.set_nonblocking(true).unwrap();
            let namespace = fs_err::File::open("/proc/thread-self/ns/net").unwrap();
            let to = SocketAddrV4::new(address, 80);
            let steered = steer(to, listener.as_fd(), &[77], namespace.as_fd()).unwrap();

            // Others listen on all addresses all the same, by either protocol.
            let all = TcpListener::bind("0.0.0.0:80").unwrap();
            all.set_nonblocking(true).unwrap();
            assert!(TcpStream::connect(to).is_ok());
            assert!(listener.accept().is_ok() && all.accept().is_err());
            assert!(TcpStream::connect("127.0.0.1:80").is_ok());
            assert!(listener.accept().is_err() && all.accept().is_ok());
            drop(all);
            let all = TcpListener::bind("[::]:80").unwrap();
            all.set_nonblocking(true).unwrap();
            assert!(TcpStream::connect(to).is_ok());
            assert!(listener.accept().is_ok() && all.accept().is_err());

            // It ends with its descriptor; the other one gets them then.
            drop(steered);
            assert!(TcpStream::connect(to).is_ok());
            assert!(listener.accept().is_err() && all.accept().is_ok());

            // Through a closed link nobody gets to any port.
            let closed = [77, link_index("lo").unwrap()];
            let _steered = steer(to, listener.as_fd(), &closed, namespace.as_fd()).unwrap();
            for port in [80, 1] {
                let refused = TcpStream::connect((address, port)).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            }
        });
    }
}
