/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Input of bindgen: the prototypes of this folder's C helpers. All other types are those of the
 * kernel crate's bindings.
 */
#include <linux/hrtimer_types.h>
#include <linux/types.h>
#include <linux/blkdev.h>
#include <linux/bio.h>

#include "src/sys/helpers.h"
