// SPDX-License-Identifier: GPL-2.0
/*
 * What modinfo and /sys/module/rblkback/version say. Kbuild takes it from the file VERSION; the
 * kernel crate's `module!` has no field for it.
 */
#include <linux/module.h>

MODULE_VERSION(RBLKBACK_VERSION);
