//! Tests of the filter by running it as the kernel would, for every number there is.

use super::*;

/// What the filter says about a call: 0 allow, or an error number.
fn judge(program: &[Instruction], architecture: u32, number: u32, argument: u32) -> i32 {
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let i = &program[at];
        at += 1;
        match i.code {
            LOAD => {
                accumulator = match i.k {
                    NUMBER => number,
                    ARCHITECTURE => architecture,
                    ARGUMENT_0 => argument,
                    other => panic!("load of {other}"),
                }
            }
            AND => accumulator &= i.k,
            JUMP_ALWAYS => at += i.k as usize,
            JUMP_EQUAL => at += usize::from(if accumulator == i.k { i.jt } else { i.jf }),
            JUMP_AT_LEAST => at += usize::from(if accumulator >= i.k { i.jt } else { i.jf }),
            RETURN if i.k == ALLOW => return 0,
            RETURN if i.k & 0xffff_0000 == ERRNO => return i32::try_from(i.k & 0xffff).unwrap(),
            other => panic!("instruction {other:#x} {:#x}", i.k),
        }
    }
}

#[test]
fn every_number_gets_what_the_table_says() {
    let program = default_filter(0);
    assert!(program.len() < 512, "{} instructions", program.len());
    for number in 0..600 {
        let listed = table::ALWAYS.iter().any(|list| list.contains(&number));
        let expected = match number {
            n if listed || [table::CLONE, table::SOCKET, table::PERSONALITY].contains(&n) => 0,
            n if n == table::CLONE3 || n > table::NEWEST => libc::ENOSYS,
            _ => libc::EPERM,
        };
        assert_eq!(judge(&program, NATIVE, number, 0), expected, "number {number}");
    }
    assert_eq!(judge(&program, NATIVE, 0x4000_0000, 0), libc::ENOSYS);
    assert_eq!(judge(&program, NATIVE, u32::MAX, 0), libc::ENOSYS);
}

#[test]
fn arguments_are_looked_at() {
    let program = default_filter(0);
    let ask = |number, argument| judge(&program, NATIVE, number, argument);
    let signal_child = 17;
    assert_eq!(ask(table::CLONE, signal_child), 0);
    assert_eq!(ask(table::CLONE, 0x1000_0000 | signal_child), libc::EPERM, "a user namespace");
    assert_eq!(ask(table::SOCKET, 2), 0);
    assert_eq!(ask(table::SOCKET, AF_VSOCK), libc::EPERM);
    assert_eq!(ask(table::PERSONALITY, 0xffff_ffff), 0);
    assert_eq!(ask(table::PERSONALITY, 0x4_0000), libc::EPERM, "no address space randomisation");
}

#[test]
fn another_architecture_gets_an_error() {
    let i386 = 0x4000_0003;
    for number in [0, 1, 5, table::CLONE, u32::MAX] {
        assert_eq!(judge(&default_filter(u64::MAX), i386, number, 0), libc::ENOSYS);
    }
}

#[test]
fn capabilities_open_their_calls() {
    let number = |n: libc::c_long| u32::try_from(n).unwrap();
    let mount = number(libc::SYS_mount);
    assert_eq!(judge(&default_filter(0), NATIVE, mount, 0), libc::EPERM);
    let admin = default_filter(1 << 21);
    assert_eq!(judge(&admin, NATIVE, mount, 0), 0);
    assert_eq!(judge(&admin, NATIVE, table::CLONE3, 0), 0);
    assert_eq!(judge(&admin, NATIVE, table::CLONE, 0x1000_0000), 0);
    assert_eq!(judge(&admin, NATIVE, number(libc::SYS_reboot), 0), libc::EPERM);
    default_filter(u64::MAX);
}
