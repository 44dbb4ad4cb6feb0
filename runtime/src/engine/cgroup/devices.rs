//! Device rules of cgroup version 2, where the kernel asks a small program about each access instead of keeping a list.
//!
//! The program gets `{ access_type: access << 16 | kind, major, minor }` (linux/bpf.h, `bpf_cgroup_dev_ctx`) and returns 1 to
//! allow. Rules only ever allow; what no rule allows is denied.

use crate::engine::sys::BpfInstruction;

/// Reading, writing and making a node, as the kernel numbers them (`BPF_DEVCG_ACC_*`).
const MAKE: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// One thing that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Block or character device; `None` is both.
    pub block: Option<bool>,
    /// Major number; `None` is any.
    pub major: Option<u32>,
    /// Minor number; `None` is any.
    pub minor: Option<u32>,
    /// Sum of make 1, read 2, write 4.
    pub access: u8,
}

impl Rule {
    /// A rule for `access`, some of the letters `r`, `w` and `m`.
    pub fn new(block: Option<bool>, major: Option<u32>, minor: Option<u32>, access: &str) -> Rule {
        let bits = access.chars().map(|c| match c {
            'm' => MAKE,
            'r' => READ,
            'w' => WRITE,
            _ => 0,
        });
        Rule { block, major, minor, access: bits.fold(0, |all, bit| all | bit) }
    }

    /// The nodes every container has: null, zero, full, random, urandom, tty, console and pseudo terminals; and making nodes,
    /// which needs a capability of its own. The same list as libcontainer's for version 1.
    pub fn usual() -> Vec<Rule> {
        let node = |major, minor| Rule::new(Some(false), Some(major), minor, "rwm");
        let mut rules: Vec<Rule> = [3, 5, 7, 8, 9].map(|minor| node(1, Some(minor))).into();
        rules.extend([node(5, Some(0)), node(5, Some(1)), node(5, Some(2)), node(136, None)]);
        rules.extend([Rule::new(Some(false), None, None, "m"), Rule::new(Some(true), None, None, "m")]);
        rules
    }
}

/// The program for a set of rules.
pub fn program(rules: &[Rule]) -> Vec<BpfInstruction> {
    // linux/bpf_common.h: load word from memory, move, and, shift, jump, exit.
    const LOAD: u8 = 0x61;
    const MOVE: u8 = 0xbf;
    const MOVE_CONSTANT: u8 = 0xb7;
    const AND: u8 = 0x57;
    const SHIFT_RIGHT: u8 = 0x77;
    const JUMP_UNEQUAL: u8 = 0x55;
    const EXIT: u8 = 0x95;
    let op = |code, destination: u8, source: u8, offset, immediate| BpfInstruction {
        code,
        registers: source << 4 | destination,
        offset,
        immediate,
    };
    // r1 is the context; r2 kind, r3 access, r4 major, r5 minor.
    let mut out = vec![
        op(LOAD, 2, 1, 0, 0),
        op(MOVE, 3, 2, 0, 0),
        op(AND, 2, 0, 0, 0xffff),
        op(SHIFT_RIGHT, 3, 0, 0, 16),
        op(LOAD, 4, 1, 4, 0),
        op(LOAD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let mut checks = Vec::with_capacity(8);
        if let Some(block) = rule.block {
            checks.push((2, if block { BLOCK } else { CHARACTER }));
        }
        checks.extend(rule.major.map(|major| (4, major.cast_signed())));
        checks.extend(rule.minor.map(|minor| (5, minor.cast_signed())));
        // What is asked for beyond what the rule allows must be nothing.
        let beyond = i32::from(!rule.access & (MAKE | READ | WRITE));
        let length = i16::try_from(checks.len() + 5).unwrap_or(i16::MAX);
        let mut position = 0;
        out.extend([op(MOVE, 1, 3, 0, 0), op(AND, 1, 0, 0, beyond)]);
        position += 3;
        out.push(op(JUMP_UNEQUAL, 1, 0, length - position, 0));
        for (register, value) in checks {
            position += 1;
            out.push(op(JUMP_UNEQUAL, register, 0, length - position, value));
        }
        out.extend([op(MOVE_CONSTANT, 0, 0, 0, 1), op(EXIT, 0, 0, 0, 0)]);
    }
    out.extend([op(MOVE_CONSTANT, 0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    out
}
