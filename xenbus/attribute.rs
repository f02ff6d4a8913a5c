// SPDX-License-Identifier: GPL-2.0

//! sysfs attribute groups of a bound device: one value per file, read-only.
//!
//! The driver core adds the groups after `probe`. Before it calls the bus's `remove` it removes
//! them and waits for readers, so the driver's data exists whenever a file is read. All tables are
//! constants. Their type parameter is the type of the driver's data, so a table fits only the
//! driver whose data it shows.
//!
//! C headers: [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h),
//! [`include/linux/device.h`](srctree/include/linux/device.h)

use core::{
    marker::PhantomData,
    ptr::null, //
};

use kernel::{
    bindings,
    device as kdevice,
    fmt,
    prelude::*, //
};

/// A sysfs file that shows one value of the driver's data.
pub(crate) trait Show: 'static {
    /// The driver's data: `Driver::Data` in `super::driver`.
    type Data: 'static;

    /// The file's name.
    const NAME: &'static CStr;

    /// Writes the value to `f`, without a newline.
    ///
    /// Context: the process that reads the file. May sleep.
    fn show(data: &Self::Data, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// Provides the C attribute of each [`Show`].
trait Attribute: Show {
    /// The file with mode 0444, shown by [`show`].
    const ATTRIBUTE: &'static bindings::device_attribute = &{
        let mut attribute: bindings::device_attribute = pin_init::zeroed();
        attribute.attr.name = Self::NAME.to_bytes_with_nul().as_ptr().cast();
        attribute.attr.mode = 0o444;
        attribute.__bindgen_anon_1.show = Some(show::<Self>);
        attribute
    };
}

impl<S: Show + ?Sized> Attribute for S {}

/// Shows `S` in `buf`: the `show` callback of [`Attribute::ATTRIBUTE`].
///
/// # Safety
///
/// Only sysfs may call this, for a file in a group of a driver whose data is `S::Data`.
unsafe extern "C" fn show<S: Show + ?Sized>(
    dev: *mut bindings::device,
    _attribute: *mut bindings::device_attribute,
    buf: *mut c_char,
) -> isize {
    // SAFETY: sysfs passes a device that is alive. The driver core keeps the file only while the
    // driver is bound, so the driver's data is set. `Entry`, `Group` and `Groups` guarantee that
    // its type is `S::Data`.
    let data = unsafe {
        let dev: &kdevice::Device<kdevice::CoreInternal<'_>> = kdevice::Device::from_raw(dev);
        dev.drvdata_borrow::<S::Data>()
    };
    // SAFETY: sysfs passes a `buf` of one page.
    unsafe { emit(buf, fmt!("{}", ShowValue::<S>(&data))) }
}

/// Formats `text` and a newline into `buf` and returns the length in bytes.
///
/// The text is formatted once, into the page itself. With a first pass for the length, a counter
/// that gains a digit between the two passes would not fit.
///
/// # Safety
///
/// `buf` must be the page that sysfs passed to a `show` callback.
unsafe fn emit(buf: *mut c_char, text: fmt::Arguments<'_>) -> isize {
    let text = core::ptr::from_ref(&text).cast::<c_void>();
    // SAFETY: The caller guarantees that `buf` is a sysfs page. `%pA` takes a pointer to
    // `fmt::Arguments` (lib/vsprintf.c), and `text` is one.
    unsafe { bindings::sysfs_emit(buf, c"%pA\n".as_char_ptr(), text) as isize }
}

/// Displays the value that `S` shows.
struct ShowValue<'a, S: Show + ?Sized>(&'a S::Data);

impl<S: Show + ?Sized> fmt::Display for ShowValue<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        S::show(self.0, f)
    }
}

/// An entry of a [`Group`]: a file, or the end of the group.
#[repr(transparent)]
pub(crate) struct Entry<D: 'static>(*const bindings::attribute, PhantomData<fn(&D)>);

impl<D: 'static> Entry<D> {
    /// The end of a group.
    pub(crate) const END: Self = Self(null(), PhantomData);

    /// The file that shows `S`.
    pub(crate) const fn of<S: Show<Data = D>>() -> Self {
        Self(&raw const <S as Attribute>::ATTRIBUTE.attr, PhantomData)
    }
}

/// A group of files (`struct attribute_group`).
#[repr(transparent)]
pub(crate) struct Group<D: 'static>(bindings::attribute_group, PhantomData<fn(&D)>);

impl<D: 'static> Group<D> {
    /// Creates a group. The files are in the subdirectory `name`, or with `None` in the device's
    /// own directory.
    ///
    /// Evaluated at build time: `entries` whose last one is not [`Entry::END`] do not compile.
    pub(crate) const fn new(name: Option<&'static CStr>, entries: &'static [Entry<D>]) -> Self {
        assert!(matches!(entries, [.., last] if last.0.is_null()));
        let mut group: bindings::attribute_group = pin_init::zeroed();
        if let Some(name) = name {
            group.name = name.to_bytes_with_nul().as_ptr().cast();
        }
        // sysfs never writes to attributes or to their table, so the cast to `*mut` is harmless.
        group.__bindgen_anon_2.attrs = entries.as_ptr().cast_mut().cast();
        Self(group, PhantomData)
    }
}

/// An entry of [`Groups`]: a group, or the end of the list.
#[repr(transparent)]
pub(crate) struct Listed<D: 'static>(*const bindings::attribute_group, PhantomData<fn(&D)>);

impl<D: 'static> Listed<D> {
    /// The end of a list.
    pub(crate) const END: Self = Self(null(), PhantomData);

    /// The entry for `group`.
    pub(crate) const fn of(group: &'static Group<D>) -> Self {
        Self(&raw const group.0, PhantomData)
    }
}

/// All groups of a driver.
pub(crate) struct Groups<D: 'static>(&'static [Listed<D>]);

impl<D: 'static> Groups<D> {
    /// Creates the table of the groups in `list`.
    ///
    /// Evaluated at build time: a `list` whose last entry is not [`Listed::END`] does not compile.
    pub(crate) const fn new(list: &'static [Listed<D>]) -> Self {
        assert!(matches!(list, [.., last] if last.0.is_null()));
        Self(list)
    }

    /// Returns the table for `struct device_driver::dev_groups`.
    pub(crate) fn as_ptr(&self) -> *mut *const bindings::attribute_group {
        // The driver core never writes to the table, so the cast to `*mut` is harmless.
        self.0.as_ptr().cast_mut().cast()
    }
}
