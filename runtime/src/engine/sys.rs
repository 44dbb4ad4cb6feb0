//! The kernel interfaces the engine needs and no safe crate offers: fork in the single-threaded shim, a signal descriptor,
//! installing a seccomp filter, attaching a device program to a cgroup. The only unsafe code of the engine.
#![expect(unsafe_code, reason = "raw system calls; every block carries its SAFETY note")]

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Which side of a [`fork`] this is.
pub enum Forked {
    /// The child.
    Child,
    /// The parent, with the child's process id.
    Parent(i32),
}

/// Forks. Refuses in a process that has more than one thread, where the child could not even allocate memory.
///
/// # Errors
/// The system's, or `InvalidInput` when there are other threads.
pub fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "fork in a process with several threads"));
    }
    // SAFETY: the process has one thread, checked above, so the child's copy of every lock and of the heap is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Ends a forked child at once, without the parent's exit handlers and buffers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Blocks `SIGCHLD` and returns a descriptor that is readable when a child has ended.
///
/// # Errors
/// The system's.
pub fn child_signals() -> io::Result<File> {
    // SAFETY: the set is a plain value initialised by sigemptyset before use; the descriptor is fresh and ours alone.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(File::from_raw_fd(fd)),
        }
    }
}

/// Gives every signal its default action and blocks none: what a program expects that was not told otherwise. Rust's own
/// start-up ignores `SIGPIPE`, and ignored signals would be inherited by the container.
pub fn reset_signals() {
    // By system call, because the C library hides two signals of its own, which its `posix_spawn` leaves ignored.
    let default = [0_u64; 4];
    let pointer: *const u64 = default.as_ptr();
    for signal in 1..=64_i32 {
        // SAFETY: all zeroes is the kernel's sigaction for the default action on both architectures, 32 bytes long; a signal
        // whose action is fixed is refused.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, pointer, std::ptr::null_mut::<u64>(), 8) };
    }
    // SAFETY: the set is a plain value initialised by sigemptyset before use.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

/// Replaces this process by `path`.
///
/// # Errors
/// Returns only with the system's error.
pub fn exec(path: &std::ffi::CStr, args: &[std::ffi::CString], env: &[std::ffi::CString]) -> io::Error {
    let pointers = |list: &[std::ffi::CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer, and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// One instruction of classic BPF, as `struct sock_filter`.
pub type Instruction = libc::sock_filter;

/// Installs a seccomp filter for this thread, for good.
///
/// # Errors
/// `EACCES` without `no_new_privs` and without `CAP_SYS_ADMIN`, `EINVAL` for a program the kernel refuses.
pub fn install_seccomp(program: &[Instruction]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let pointer: *const libc::sock_fprog = &fprog;
    // SAFETY: fprog and the program it points to live across the call, and the kernel only reads them.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, pointer) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Borrows standard input, output or error by number.
pub fn stdio(fd: Stdio) -> BorrowedFd<'static> {
    // SAFETY: descriptors 0–2 are never closed in this process, only replaced.
    unsafe { BorrowedFd::borrow_raw(fd as RawFd) }
}

/// The standard descriptors.
#[derive(Clone, Copy)]
pub enum Stdio {
    /// 0
    In = 0,
    /// 1
    Out = 1,
    /// 2
    Err = 2,
}

/// Makes `fd` the standard descriptor `to`; it is inherited by programs.
///
/// # Errors
/// The system's.
pub fn replace_stdio(fd: BorrowedFd<'_>, to: Stdio) -> io::Result<()> {
    // SAFETY: dup2 onto 0–2 closes what was there, which nothing in the shim owns as an OwnedFd.
    match unsafe { libc::dup2(fd.as_raw_fd(), to as RawFd) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// One instruction of extended BPF, as `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpfInstruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low, source register in the high four bits.
    pub registers: u8,
    /// Jump or memory offset.
    pub offset: i16,
    /// Constant.
    pub immediate: i32,
}

impl BpfInstruction {
    /// As it lies in memory.
    pub fn bytes(self) -> [u8; 8] {
        let ([o0, o1], [i0, i1, i2, i3]) = (self.offset.to_ne_bytes(), self.immediate.to_ne_bytes());
        [self.code, self.registers, o0, o1, i0, i1, i2, i3]
    }
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE` and attaches it to a cgroup v2 directory: the kernel then asks it about
/// every access to a device node. It stays as long as the cgroup.
///
/// # Errors
/// The system's: `EPERM` without `CAP_BPF`/`CAP_SYS_ADMIN`, `EINVAL` where the kernel has no cgroup BPF.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: &[BpfInstruction]) -> io::Result<()> {
    /// The part of `union bpf_attr` that BPF_PROG_LOAD reads up to `kern_version`.
    #[repr(C)]
    struct Load {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
    }
    /// The part of `union bpf_attr` that BPF_PROG_ATTACH reads.
    #[repr(C)]
    struct Attach {
        target_fd: u32,
        attach_bpf_fd: u32,
        attach_type: u32,
        attach_flags: u32,
    }
    const BPF_PROG_LOAD: libc::c_long = 5;
    const BPF_PROG_ATTACH: libc::c_long = 8;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let load = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    let pointer: *const Load = &load;
    // SAFETY: the attributes, the program and the licence text live across the call; the size is that of the attributes.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, pointer, mem::size_of::<Load>()) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: a fresh descriptor returned by the kernel, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let attach = Attach {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_bpf_fd: fd.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    let pointer: *const Attach = &attach;
    // SAFETY: as above.
    match unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, pointer, mem::size_of::<Attach>()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a detached, read-only copy of the mount of one file, as a descriptor of it: a program started from it cannot be written
/// through `/proc/PID/exe` by anybody inside a container.
///
/// # Errors
/// The system's: `ENOSYS` before Linux 5.12, `EPERM` without `CAP_SYS_ADMIN`.
pub fn readonly_clone(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const MOUNT_ATTR_RDONLY: u64 = 1;
    let flags = libc::c_long::from(libc::OPEN_TREE_CLONE)
        | libc::c_long::from(libc::OPEN_TREE_CLOEXEC)
        | libc::c_long::from(libc::AT_EMPTY_PATH);
    // SAFETY: an empty path with AT_EMPTY_PATH names the descriptor itself.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, file.as_raw_fd(), c"".as_ptr(), flags) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: a fresh descriptor returned by the kernel, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let attributes = libc::mount_attr { attr_set: MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let pointer: *const libc::mount_attr = &attributes;
    // SAFETY: the attributes live across the call, and the size is theirs.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            pointer,
            mem::size_of::<libc::mount_attr>(),
        )
    };
    if set == 0 { Ok(fd) } else { Err(io::Error::last_os_error()) }
}
