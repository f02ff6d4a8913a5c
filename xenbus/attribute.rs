// SPDX-License-Identifier: GPL-2.0

//! sysfs attribute groups of a bound device: one value per file, read-only.
//!
//! The driver core adds the groups after `probe` and takes them away, waiting for
//! readers, before it unbinds the driver, so a reader always finds the driver's
//! data. All tables are constants; their types tie them to the data they show.
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

/// A file: shows one value of the driver's data.
pub(crate) trait Show: 'static {
    /// The driver's data (`Driver::Data` in `super::driver`).
    type Data: 'static;

    /// The file's name.
    const NAME: &'static CStr;

    /// Writes the value, without a newline. May sleep.
    fn show(data: &Self::Data, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// The C attribute of a file.
trait Attribute: Show {
    const ATTRIBUTE: &'static bindings::device_attribute = &{
        let mut attribute: bindings::device_attribute = pin_init::zeroed();
        attribute.attr.name = Self::NAME.to_bytes_with_nul().as_ptr().cast();
        attribute.attr.mode = 0o444;
        attribute.__bindgen_anon_1.show = Some(show::<Self>);
        attribute
    };
}

impl<S: Show + ?Sized> Attribute for S {}

/// Shows `S` in `buf`.
///
/// # Safety
///
/// Called by sysfs for an attribute of [`Attribute::ATTRIBUTE`] in a group of a
/// driver whose data is `S::Data`.
unsafe extern "C" fn show<S: Show + ?Sized>(
    dev: *mut bindings::device,
    _attribute: *mut bindings::device_attribute,
    buf: *mut c_char,
) -> isize {
    // SAFETY: sysfs passes a live device, and the driver core shows these files
    // only while the driver is bound.
    let dev: &kdevice::Device<kdevice::CoreInternal<'_>> =
        unsafe { kdevice::Device::from_raw(dev) };
    // SAFETY: As above. The types of `Entry`, `Group` and `Groups` tie the file to
    // a driver with this data.
    let data = unsafe { dev.drvdata_borrow::<S::Data>() };
    // SAFETY: sysfs passes a page to write to.
    unsafe { emit(buf, fmt!("{}", ShowValue::<S>(&data))) }
}

/// Formats right into the page, once: a number that grows a digit between a look at
/// its length and another at its value does not fit.
///
/// # Safety
///
/// `buf` is the page that sysfs passes to a `show`.
unsafe fn emit(buf: *mut c_char, text: fmt::Arguments<'_>) -> isize {
    let text = core::ptr::from_ref(&text).cast::<c_void>();
    // SAFETY: By the contract; `%pA` takes a pointer to `fmt::Arguments`
    // (lib/vsprintf.c).
    unsafe { bindings::sysfs_emit(buf, c"%pA\n".as_char_ptr(), text) as isize }
}

struct ShowValue<'a, S: Show + ?Sized>(&'a S::Data);

impl<S: Show + ?Sized> fmt::Display for ShowValue<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        S::show(self.0, f)
    }
}

/// A file in a group, or the end of the group.
#[repr(transparent)]
pub(crate) struct Entry<D: 'static>(*const bindings::attribute, PhantomData<fn(&D)>);

impl<D: 'static> Entry<D> {
    /// Ends a group.
    pub(crate) const END: Self = Self(null(), PhantomData);

    /// The file of `S`.
    pub(crate) const fn of<S: Show<Data = D>>() -> Self {
        Self(&raw const <S as Attribute>::ATTRIBUTE.attr, PhantomData)
    }
}

/// A directory of files, or files in the device's own directory.
#[repr(transparent)]
pub(crate) struct Group<D: 'static>(bindings::attribute_group, PhantomData<fn(&D)>);

impl<D: 'static> Group<D> {
    /// A group; `name` `None` puts the files into the device's own directory.
    /// Evaluated at build time: entries that do not finish with [`Entry::END`] do
    /// not compile.
    pub(crate) const fn new(name: Option<&'static CStr>, entries: &'static [Entry<D>]) -> Self {
        assert!(matches!(entries, [.., last] if last.0.is_null()));
        let mut group: bindings::attribute_group = pin_init::zeroed();
        if let Some(name) = name {
            group.name = name.to_bytes_with_nul().as_ptr().cast();
        }
        // The C side never writes to attributes or their table.
        group.__bindgen_anon_2.attrs = entries.as_ptr().cast_mut().cast();
        Self(group, PhantomData)
    }
}

/// A group in a driver's list, or its end.
#[repr(transparent)]
pub(crate) struct Listed<D: 'static>(*const bindings::attribute_group, PhantomData<fn(&D)>);

impl<D: 'static> Listed<D> {
    /// Ends a list.
    pub(crate) const END: Self = Self(null(), PhantomData);

    /// `group`.
    pub(crate) const fn of(group: &'static Group<D>) -> Self {
        Self(&raw const group.0, PhantomData)
    }
}

/// All groups of a driver.
pub(crate) struct Groups<D: 'static>(&'static [Listed<D>]);

impl<D: 'static> Groups<D> {
    /// The groups in `list`. Evaluated at build time: a list that does not finish
    /// with [`Listed::END`] does not compile.
    pub(crate) const fn new(list: &'static [Listed<D>]) -> Self {
        assert!(matches!(list, [.., last] if last.0.is_null()));
        Self(list)
    }

    /// For `struct device_driver::dev_groups`.
    pub(crate) fn as_ptr(&self) -> *mut *const bindings::attribute_group {
        // The C side never writes to the list.
        self.0.as_ptr().cast_mut().cast()
    }
}
