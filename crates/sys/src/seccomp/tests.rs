use super::{ARCH, ARGS, CALL, Filter, NATIVE, Rule, SIBLING, When, X32};

/// What the kernel's interpreter would answer: a few instructions of classic BPF are all that filters use.
fn run(filter: &Filter, arch: u32, call: u32, args: [u64; 6]) -> u32 {
    let mut data = [0u8; 64];
    data[CALL as usize..][..4].copy_from_slice(&call.to_ne_bytes());
    data[ARCH as usize..][..4].copy_from_slice(&arch.to_ne_bytes());
    for (index, arg) in args.iter().enumerate() {
        data[ARGS as usize + 8 * index..][..8].copy_from_slice(&arg.to_ne_bytes());
    }
    let (mut at, mut value) = (0, 0u32);
    loop {
        let step = &filter.0[at];
        at += 1;
        let code = u32::from(step.code);
        let taken = match code {
            _ if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                value = u32::from_ne_bytes(data[step.k as usize..][..4].try_into().unwrap());
                continue;
            }
            _ if code == libc::BPF_RET | libc::BPF_K => return step.k,
            _ if code == libc::BPF_JMP | libc::BPF_JA => {
                at += step.k as usize;
                continue;
            }
            _ if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => value == step.k,
            _ if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => value >= step.k,
            _ if code == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K => value & step.k != 0,
            _ => panic!("unknown instruction {code:#x}"),
        };
        at += usize::from(if taken { step.jt } else { step.jf });
    }
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number as u32
}

#[test]
fn rules_refuse_what_they_say_and_nothing_else() {
    let native = [
        Rule {
            call: 165,
            when: When::Always,
            errno: 1,
        },
        Rule {
            call: 56,
            when: When::AnyBit(0, 0x7E02_0000),
            errno: 1,
        },
        Rule {
            call: 41,
            when: When::Equal(0, 40),
            errno: 97,
        },
        Rule {
            call: 435,
            when: When::Always,
            errno: 38,
        },
    ];
    let sibling: Vec<Rule> = (0..300)
        .filter(|call| call % 2 == 1)
        .map(|call| Rule {
            call,
            when: When::Always,
            errno: 1,
        })
        .collect();
    let filter = Filter::new(&native, &sibling);
    let table = [
        (NATIVE, 165, 0, errno(1)),
        (NATIVE, 166, 0, ALLOW),
        (NATIVE, 0, 0, ALLOW),
        (NATIVE, 56, 0x1000_0000, errno(1)),
        (NATIVE, 56, 0x11, ALLOW),
        (NATIVE, 56, 0x1000_0000_0000_0000, ALLOW),
        (NATIVE, 41, 40, errno(97)),
        (NATIVE, 41, 2, ALLOW),
        (NATIVE, 435, 0, errno(38)),
        (SIBLING, 165, 0, errno(1)),
        (SIBLING, 21, 0, errno(1)),
        (SIBLING, 20, 0, ALLOW),
        (SIBLING, 299, 0, errno(1)),
        (0x1234, 0, 0, errno(38)),
    ];
    for (arch, call, arg, expected) in table {
        assert_eq!(
            run(&filter, arch, call, [arg, 0, 0, 0, 0, 0]),
            expected,
            "{arch:#x} {call} {arg:#x}"
        );
    }
    if cfg!(target_arch = "x86_64") {
        assert_eq!(run(&filter, NATIVE, X32 | 165, [0; 6]), errno(38));
    }
}

#[test]
fn the_kernel_takes_a_filter_of_a_thread() {
    std::thread::spawn(|| {
        // So that the test needs no privilege.
        rustix::thread::set_no_new_privs(true).unwrap();
        let filter = Filter::new(
            &[Rule {
                call: libc::SYS_uname as u32,
                when: When::Always,
                errno: libc::EXDEV as u16,
            }],
            &[],
        );
        filter.apply().unwrap();
        // A call by number, since a wrapper could answer from memory.
        let mut name = std::mem::MaybeUninit::<libc::utsname>::uninit();
        // SAFETY: uname writes one struct utsname; the filter refuses it anyway.
        let result = unsafe { libc::syscall(libc::SYS_uname, name.as_mut_ptr()) };
        assert_eq!(result, -1);
        assert_eq!(
            std::io::Error::last_os_error().raw_os_error(),
            Some(libc::EXDEV)
        );
    })
    .join()
    .unwrap();
}
