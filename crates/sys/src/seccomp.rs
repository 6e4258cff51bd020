//! A filter that refuses some system calls: `seccomp(2)` with `SECCOMP_SET_MODE_FILTER`.
//!
//! A list of [`Rule`]s is compiled to classic BPF. Unlike most helpers this one does not set `no_new_privs`: a set-id
//! program must work behind the filter, so the caller needs `CAP_SYS_ADMIN` in its user namespace when it applies it.
//! Programs of the machine's 32-bit sibling have other call numbers and get rules of their own.
#![allow(unsafe_code)]

use std::io;
use std::mem::offset_of;

use libc::sock_filter;

/// When a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// When the low 32 bits of an argument (0 to 5) have one of these bits.
    AnyBit(u8, u32),
    /// When the low 32 bits of an argument (0 to 5) have this value.
    Equal(u8, u32),
}

/// One refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Number of the call.
    pub call: u32,
    /// Under which condition.
    pub when: When,
    /// The error that the caller gets, 1 to 4095.
    pub errno: u16,
}

/// A compiled filter.
#[derive(Clone)]
pub struct Filter(Vec<sock_filter>);

impl std::fmt::Debug for Filter {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Filter({} instructions)", self.0.len())
    }
}

const ARCH: u32 = offset_of!(libc::seccomp_data, arch) as u32;
const CALL: u32 = offset_of!(libc::seccomp_data, nr) as u32;
const ARGS: u32 = offset_of!(libc::seccomp_data, args) as u32;

// `linux/audit.h`: ELF machine, 0x8000_0000 for 64 bits, 0x4000_0000 for little endian.
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xC000_003E;
#[cfg(target_arch = "x86_64")]
const SIBLING: u32 = 0x4000_0003;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xC000_00B7;
#[cfg(target_arch = "aarch64")]
const SIBLING: u32 = 0x4000_0028;

/// Calls of the x32 interface have this bit in their number (`__X32_SYSCALL_BIT`).
const X32: u32 = 0x4000_0000;

#[allow(clippy::cast_possible_truncation)]
fn instruction(code: u32, jump_true: u8, jump_false: u8, k: u32) -> sock_filter {
    // BPF codes are below 256.
    sock_filter {
        code: code as u16,
        jt: jump_true,
        jf: jump_false,
        k,
    }
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn jump(test: u32, k: u32, jump_true: u8, jump_false: u8) -> sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, jump_true, jump_false, k)
}

fn give(k: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, k)
}

fn refuse(errno: u16) -> sock_filter {
    give(libc::SECCOMP_RET_ERRNO | u32::from(errno & 0xFFF))
}

impl Filter {
    /// Compiles rules for this machine's calls and for those of its 32-bit sibling (i386, arm). Everything else is
    /// allowed; calls of any further interface (x32) fail with `ENOSYS`.
    #[must_use]
    pub fn new(native: &[Rule], sibling: &[Rule]) -> Self {
        let mut program = vec![
            load(ARCH),
            // The sibling's part follows at once, so that both jumps stay short.
            jump(libc::BPF_JEQ, SIBLING, 1, 0),
            instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, 0),
        ];
        add_rules(&mut program, sibling);
        let native_at = program.len();
        // An unconditional jump counts from the instruction after it, and has 32 bits.
        program[2].k = u32::try_from(native_at - 3).unwrap_or(u32::MAX);
        program.push(jump(libc::BPF_JEQ, NATIVE, 1, 0));
        program.push(refuse(libc::ENOSYS as u16));
        if cfg!(target_arch = "x86_64") {
            program.push(load(CALL));
            program.push(jump(libc::BPF_JGE, X32, 0, 1));
            program.push(refuse(libc::ENOSYS as u16));
        }
        add_rules(&mut program, native);
        Self(program)
    }

    /// Puts the filter into force for the calling thread and all that it starts, for good.
    ///
    /// # Errors
    /// `EACCES` without `CAP_SYS_ADMIN` (and without `no_new_privs`), `EINVAL` for a program that the kernel does not
    /// take, for example one of more than 4096 instructions.
    pub fn apply(&self) -> io::Result<()> {
        let length =
            u16::try_from(self.0.len()).map_err(|_| io::Error::from(rustix::io::Errno::INVAL))?;
        let program = libc::sock_fprog {
            len: length,
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: `program` points at `length` instructions that live through the call; the kernel only reads them.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0u32,
                &raw const program,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

/// `if call == n { refuse }` for each rule, then allow. A test and its answer stand together, so no jump is long.
fn add_rules(program: &mut Vec<sock_filter>, rules: &[Rule]) {
    program.push(load(CALL));
    for rule in rules {
        let (index, test, operand) = match rule.when {
            When::Always => {
                program.push(jump(libc::BPF_JEQ, rule.call, 0, 1));
                program.push(refuse(rule.errno));
                continue;
            }
            When::AnyBit(index, bits) => (index, libc::BPF_JSET, bits),
            When::Equal(index, value) => (index, libc::BPF_JEQ, value),
        };
        let low_word = if cfg!(target_endian = "little") { 0 } else { 4 };
        program.push(jump(libc::BPF_JEQ, rule.call, 0, 4));
        program.push(load(ARGS + 8 * u32::from(index.min(5)) + low_word));
        program.push(jump(test, operand, 0, 1));
        program.push(refuse(rule.errno));
        // The accumulator holds an argument now; later rules for the same call see the number again.
        program.push(load(CALL));
    }
    program.push(give(libc::SECCOMP_RET_ALLOW));
}

#[cfg(test)]
mod tests;
