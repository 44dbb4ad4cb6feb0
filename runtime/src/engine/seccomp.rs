//! The default system call filter: equal in effect to Docker's and containerd's allow-list for the native architecture, built
//! here in microseconds instead of by a C library in milliseconds.
//!
//! What is not on the list fails with `EPERM`; `clone3` with `ENOSYS`, so that C libraries fall back to `clone`, whose flags a
//! filter can see. Numbers the kernel has learnt since this list was written also fail with `ENOSYS`: programs probe for them.
//! So do another architecture's: 32-bit programs are not supported, and see an error instead of being killed.
//!
//! ```text
//! architecture? ─ other ─► ENOSYS
//!      │
//! number ─► a balanced tree of comparisons over the sorted ranges of allowed numbers
//!      ├─ allowed ─► allow           ├─ clone, socket, personality ─► look at an argument
//!      └─ else ─► EPERM / ENOSYS
//! ```

use super::sys::Instruction;

mod table;
#[cfg(test)]
mod tests;

// linux/bpf_common.h and linux/seccomp.h.
const LOAD: u16 = 0x20;
const JUMP_ALWAYS: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// The low half of argument 0; both architectures are little-endian.
const ARGUMENT_0: u32 = 16;

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// The flags of `clone` that make namespaces.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;
/// A socket family that reaches the hypervisor past every namespace.
const AF_VSOCK: u32 = 40;
/// `personality` values that only choose an execution domain; -1 asks.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// What is done about a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    Refuse,
    Unknown,
    Clone,
    Socket,
    Personality,
}

/// The filter for a process with these capabilities (one bit each by number): calls that need one are allowed with it.
pub fn default_filter(capabilities: u64) -> Vec<Instruction> {
    let ranges = ranges(capabilities);
    let mut program = vec![
        op(LOAD, ARCHITECTURE, 0, 0),
        op(JUMP_EQUAL, NATIVE, 1, 0),
        op(RETURN, ENOSYS, 0, 0),
        op(LOAD, NUMBER, 0, 0),
    ];
    program.extend(tree(&ranges));
    program
}

const fn op(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// The whole number line as ranges: first number, and what is done from there on.
fn ranges(capabilities: u64) -> Vec<(u32, Verdict)> {
    let mut numbers: Vec<(u32, Verdict)> =
        table::ALWAYS.iter().copied().flatten().map(|n| (*n, Verdict::Allow)).collect();
    for (capability, list) in table::WITH_CAPABILITY {
        if capabilities & (1 << capability) != 0 {
            numbers.extend(list.iter().map(|n| (*n, Verdict::Allow)));
        }
    }
    let clone3_allowed = numbers.contains(&(table::CLONE3, Verdict::Allow));
    for (number, verdict) in
        [(table::CLONE, Verdict::Clone), (table::SOCKET, Verdict::Socket), (table::PERSONALITY, Verdict::Personality)]
    {
        if !numbers.contains(&(number, Verdict::Allow)) {
            numbers.push((number, verdict));
        }
    }
    if !clone3_allowed {
        numbers.push((table::CLONE3, Verdict::Unknown));
    }
    numbers.sort_by_key(|(number, _)| *number);
    numbers.dedup_by_key(|(number, _)| *number);
    let mut ranges = vec![(0, Verdict::Refuse)];
    for (number, verdict) in numbers {
        // A range begun just behind the last number is replaced when it begins with this one.
        if ranges.last().is_some_and(|(first, _)| *first == number) {
            ranges.pop();
        }
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((number, verdict));
        }
        ranges.push((number + 1, Verdict::Refuse));
    }
    ranges.retain(|(first, _)| *first <= table::NEWEST);
    ranges.push((table::NEWEST + 1, Verdict::Unknown));
    ranges
}

/// A decision tree over ranges; the number is in the accumulator.
fn tree(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    let (left, right) = ranges.split_at(ranges.len() / 2);
    let (Some((first, _)), false) = (right.first(), left.is_empty()) else {
        return ranges.first().map(|(_, verdict)| leaf(*verdict)).unwrap_or_default();
    };
    let (low, high) = (tree(left), tree(right));
    // A conditional jump reaches 255 instructions, an unconditional one everything.
    let distance = u32::try_from(low.len()).unwrap_or(u32::MAX);
    let mut code = match u8::try_from(distance) {
        Ok(near) => vec![op(JUMP_AT_LEAST, *first, near, 0)],
        Err(_) => vec![op(JUMP_AT_LEAST, *first, 0, 1), op(JUMP_ALWAYS, distance, 0, 0)],
    };
    code.extend(low);
    code.extend(high);
    code
}

fn leaf(verdict: Verdict) -> Vec<Instruction> {
    let ret = |value| op(RETURN, value, 0, 0);
    match verdict {
        Verdict::Allow => vec![ret(ALLOW)],
        Verdict::Refuse => vec![ret(EPERM)],
        Verdict::Unknown => vec![ret(ENOSYS)],
        Verdict::Clone => vec![
            op(LOAD, ARGUMENT_0, 0, 0),
            op(AND, CLONE_NAMESPACES, 0, 0),
            op(JUMP_EQUAL, 0, 0, 1),
            ret(ALLOW),
            ret(EPERM),
        ],
        Verdict::Socket => {
            vec![op(LOAD, ARGUMENT_0, 0, 0), op(JUMP_EQUAL, AF_VSOCK, 1, 0), ret(ALLOW), ret(EPERM)]
        }
        Verdict::Personality => {
            let mut code = vec![op(LOAD, ARGUMENT_0, 0, 0)];
            for value in PERSONALITIES {
                code.extend([op(JUMP_EQUAL, value, 0, 1), ret(ALLOW)]);
            }
            code.push(ret(EPERM));
            code
        }
    }
}
