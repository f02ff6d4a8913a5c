// SPDX-License-Identifier: GPL-2.0

//! All `unsafe` code of the frontend: the ioctls of gntalloc, evtchn and privcmd, and memory that
//! another domain reads and writes at the same time.
//!
//! Source of the numbers: `include/uapi/xen/gntalloc.h` and `evtchn.h` of the kernel.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use nix::errno::Errno;
use nix::sys::mman::MapFlags;
use nix::sys::mman::ProtFlags;
use nix::sys::mman::mmap;
use nix::sys::mman::munmap;

pub const PAGE: usize = 4096;

/// `_IOC(_IOC_NONE, kind, number, size)`.
const fn code(kind: u8, number: u8, size: usize) -> nix::libc::Ioctl {
    ((size as nix::libc::Ioctl) << 16)
        | ((kind as nix::libc::Ioctl) << 8)
        | number as nix::libc::Ioctl
}

const HYPERCALL: nix::libc::Ioctl = code(b'P', 0, 48);
const ALLOC_GREF: nix::libc::Ioctl = code(b'G', 5, 24);
const DEALLOC_GREF: nix::libc::Ioctl = code(b'G', 6, 16);
const BIND_INTERDOMAIN: nix::libc::Ioctl = code(b'E', 1, 8);
const BIND_UNBOUND_PORT: nix::libc::Ioctl = code(b'E', 2, 4);
const UNBIND: nix::libc::Ioctl = code(b'E', 3, 4);
const NOTIFY: nix::libc::Ioctl = code(b'E', 4, 4);

/// Xen answers its own version of the control interface alone. In these, which reach from Xen 4.17
/// on, what is read here has its place.
const DOMCTL_VERSIONS: std::ops::RangeInclusive<u64> = 0x15..=0x1f;

/// `argument` has to be what the request of this number reads and writes.
fn ioctl(file: &File, request: nix::libc::Ioctl, argument: &mut [u32]) -> Result<i32> {
    // SAFETY: the descriptor is open, and the callers below pass, for each request, a buffer as
    // long as its structure (and, for ALLOC_GREF, its flexible array) in the kernel's header.
    let result = unsafe { nix::libc::ioctl(file.as_raw_fd(), request, argument.as_mut_ptr()) };
    Ok(Errno::result(result)?)
}

/// A hypercall of this domain's, which has to be dom0. What its arguments point to has to outlive it.
fn hypercall(number: u64, arguments: [u64; 3]) -> Result<i32> {
    // struct privcmd_hypercall of include/uapi/xen/privcmd.h.
    let [first, second, third] = arguments;
    let mut call = [number, first, second, third, 0, 0];
    let file = open("/dev/xen/privcmd")?;
    // SAFETY: the descriptor is open and `call` is as long as the structure; the two callers below
    // pass pointers to memory as long as what Xen reads and writes there.
    let result = unsafe { nix::libc::ioctl(file.as_raw_fd(), HYPERCALL, call.as_mut_ptr()) };
    Ok(Errno::result(result)?)
}

/// Nanoseconds for which the first virtual processor of this domain, which has to be dom0, has
/// run, what Xen did for it included.
pub fn run_time() -> Result<u64> {
    // struct vcpu_runstate_info of xen/include/public/vcpu.h: a state, when it began, and the time
    // spent in each of four, of which "running" is the first.
    let mut info = [0u64; 6];
    // vcpu_op(get_runstate_info, 0, &info)
    hypercall(24, [4, 0, info.as_mut_ptr() as u64]).context("asking Xen for the run time")?;
    Ok(std::hint::black_box(info)[2])
}

/// The same of all virtual processors of another domain.
pub fn run_time_of(domid: u16) -> Result<u64> {
    let control = domain_info(domid)?;
    let control = control.with_context(|| format!("there is no domain {domid}"))?;
    // At byte 56 of the structure.
    Ok(control[9])
}

/// Has another domain shut down, as one does that is suspended? `None`: it is gone, or about to be.
pub fn is_shut_down(domid: u16) -> Result<Option<bool>> {
    // XEN_DOMINF_* at byte 4 of the structure.
    let flags = domain_info(domid)?.map(|control| control[2] >> 32);
    let alive = flags.filter(|flags| flags & 1 == 0);
    Ok(alive.map(|flags| flags & 4 != 0))
}

/// Has Xen suspend another domain, whatever it is about.
pub fn suspend(domid: u16) -> Result<()> {
    // struct sched_remote_shutdown of xen/include/public/sched.h: the domain, and the reason at byte
    // 4: SHUTDOWN_suspend.
    let mut remote = [u64::from(domid) | (2 << 32)];
    // sched_op(remote_shutdown, &remote)
    hypercall(29, [4, remote.as_mut_ptr() as u64, 0]).context("suspending a domain")?;
    std::hint::black_box(remote);
    Ok(())
}

/// Has Xen let a domain run again that was suspended.
pub fn resume(domid: u16) -> Result<()> {
    // XEN_DOMCTL_resumedomain has no arguments.
    domctl(27, domid)?.with_context(|| format!("there is no domain {domid}"))?;
    Ok(())
}

/// What Xen says of another domain, if there is one.
fn domain_info(domid: u16) -> Result<Option<[u64; 18]>> {
    // At byte 16 of the answer is a structure that begins with the domain.
    let info = domctl(5, domid)?;
    Ok(info.filter(|control| control[2] as u16 == domid))
}

/// Has Xen execute an operation on another domain, if there is one.
fn domctl(command: u64, domid: u16) -> Result<Option<[u64; 18]>> {
    for version in DOMCTL_VERSIONS {
        // struct xen_domctl of xen/include/public/domctl.h: command and version of the interface,
        // and the domain.
        let mut control = [0u64; 18];
        control[0] = command | (version << 32);
        control[1] = u64::from(domid);
        let asked = hypercall(36, [control.as_mut_ptr() as u64, 0, 0]);
        match asked {
            Ok(_) => {
                return Ok(Some(std::hint::black_box(control)));
            }
            Err(error) if error.downcast_ref() == Some(&Errno::ESRCH) => return Ok(None),
            // What Xen says to a version that is not its own.
            Err(error) if error.downcast_ref() == Some(&Errno::EACCES) => {}
            Err(error) => return Err(error.context("asking Xen for a domain")),
        }
    }
    bail!("Xen knows none of the versions {DOMCTL_VERSIONS:?} of its control interface")
}

/// Pages of this domain that `domid` may map. Gives their place in `file` and their references.
pub fn grant(file: &File, domid: u16, writable: bool, count: usize) -> Result<(u64, Vec<u32>)> {
    // struct ioctl_gntalloc_alloc_gref: u16 domid, u16 flags, u32 count, u64 index, u32 gref_ids[].
    // At least as long as the size in the request's number.
    let mut words = vec![0u32; (4 + count).max(6)];
    words[0] = u32::from(domid) | (u32::from(writable) << 16);
    words[1] = u32::try_from(count)?;
    ioctl(file, ALLOC_GREF, &mut words).with_context(|| format!("granting {count} pages"))?;
    let index = u64::from(words[2]) | (u64::from(words[3]) << 32);
    Ok((index, words[4..4 + count].to_vec()))
}

/// Takes grants back. A page that the other domain still maps stays granted until it does not.
pub fn revoke(file: &File, index: u64, count: usize) -> Result<()> {
    // struct ioctl_gntalloc_dealloc_gref: u64 index, u32 count, padding.
    let mut words = [index as u32, (index >> 32) as u32, count as u32, 0];
    ioctl(file, DEALLOC_GREF, &mut words)
        .context("revoking grants")
        .map(drop)
}

/// A new event channel that `domid` may bind to.
pub fn bind_unbound(file: &File, domid: u32) -> Result<u32> {
    let port = ioctl(file, BIND_UNBOUND_PORT, &mut [domid]).context("making an event channel")?;
    Ok(u32::try_from(port)?)
}

/// A new event channel to port `remote` of `domid`, which waits for this domain.
pub fn bind_interdomain(file: &File, domid: u32, remote: u32) -> Result<u32> {
    // struct ioctl_evtchn_bind_interdomain: the domain and its port.
    let port = ioctl(file, BIND_INTERDOMAIN, &mut [domid, remote])
        .with_context(|| format!("binding to port {remote} of domain {domid}"))?;
    Ok(u32::try_from(port)?)
}

/// Closes an event channel.
pub fn unbind(file: &File, port: u32) -> Result<()> {
    ioctl(file, UNBIND, &mut [port])
        .with_context(|| format!("closing event channel {port}"))
        .map(drop)
}

/// Sends an event.
pub fn notify(file: &File, port: u32) -> Result<()> {
    ioctl(file, NOTIFY, &mut [port])
        .with_context(|| format!("notifying event channel {port}"))
        .map(drop)
}

/// Memory that the backend, and other threads of ours, may change at any time. It is only copied
/// from and to, with volatile accesses; nothing ever refers to it.
pub struct Shared {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: it is accessed through volatile copies only; what races is the point of this program.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Maps `pages` that were granted together, at their place in `file`.
    pub fn map(file: &File, index: u64, pages: usize) -> Result<Self> {
        let length = NonZeroUsize::new(pages * PAGE).context("no page to map")?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            mmap(
                None,
                length,
                protection,
                MapFlags::MAP_SHARED,
                file,
                i64::try_from(index)?,
            )
        }
        .context("mapping granted pages")?;
        Ok(Shared {
            base: base.cast(),
            length: length.get(),
        })
    }

    pub fn pages(&self) -> usize {
        self.length / PAGE
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        let size = size_of::<T>();
        assert!(offset % size == 0 && offset + size <= self.length);
        // SAFETY: within the mapping, as just checked.
        unsafe { self.base.as_ptr().add(offset).cast() }
    }

    /// A number at `offset`, in one access.
    pub fn read<T: Number>(&self, offset: usize) -> T {
        // SAFETY: mapped and aligned (see `at`), and every bit pattern is a `T`.
        unsafe { self.at::<T>(offset).read_volatile() }
    }

    /// Writes a number at `offset`, in one access.
    pub fn write<T: Number>(&self, offset: usize, value: T) {
        // SAFETY: mapped and aligned (see `at`).
        unsafe { self.at::<T>(offset).write_volatile(value) }
    }

    pub fn load(&self, offset: usize, bytes: &mut [u8]) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = self.read(offset + i);
        }
    }

    pub fn store(&self, offset: usize, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            self.write(offset + i, *byte);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers into it. A failure leaves it mapped,
        // which harms nobody.
        let _ = unsafe { munmap(self.base.cast(), self.length) };
    }
}

/// Numbers that are read and written in one access. Every bit pattern is one.
pub trait Number: Copy {}
impl Number for u8 {}
impl Number for i16 {}
impl Number for u32 {}
impl Number for u64 {}

/// All accesses before it come before all accesses after it, for the other domain as well.
pub fn barrier() {
    fence(Ordering::SeqCst);
}

/// Opens a device of Xen's.
pub fn open(path: &str) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("opening {path} (is its kernel module loaded?)"))
}
