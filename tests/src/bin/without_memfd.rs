//! Runs a program to which a seccomp filter forbids memory files: `without_memfd ERRNO PROGRAM [ARGUMENT]...`.

#[cfg(target_os = "linux")]
use std::collections::BTreeMap;
#[cfg(target_os = "linux")]
use std::env;
#[cfg(target_os = "linux")]
use std::os::unix::process::CommandExt as _;
#[cfg(target_os = "linux")]
use std::process::Command;

#[cfg(target_os = "linux")]
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [errno, program, rest @ ..] = arguments.as_slice() else { panic!("started by the test alone") };
    let memfd_create = BTreeMap::from([(libc::SYS_memfd_create, Vec::new())]);
    let denied = SeccompAction::Errno(errno.parse().expect("a number"));
    let here = env::consts::ARCH.try_into().expect("an architecture that seccomp knows");
    let filter = SeccompFilter::new(memfd_create, SeccompAction::Allow, denied, here).expect("a filter");
    let filter = BpfProgram::try_from(filter).expect("a small filter");
    apply_filter(&filter).expect("a kernel with seccomp");
    panic!("{program}: {}", Command::new(program).args(rest).exec());
}
