/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Input of bindgen: the Xen headers, which the kernel crate's bindings do not include, and the
 * prototypes of this folder's C helpers.
 */
#include <linux/hrtimer_types.h>
#include <linux/types.h>
#include <linux/device.h>
#include <linux/blkdev.h>
#include <linux/bio.h>
#include <xen/xen.h>
#include <xen/xenbus.h>
#include <xen/grant_table.h>
#include <xen/events.h>
#include <xen/interface/io/xenbus.h>

#include "xenbus/helpers.h"
