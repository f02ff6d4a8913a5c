// SPDX-License-Identifier: GPL-2.0
/*
 * Module parameters: those of xen-blkback with the same names, units and defaults, so that an
 * administrator's modprobe.d stays valid, and some of this module. They are written in C because
 * parameters of the kernel crate cannot change after the module is loaded.
 *
 * A value that is out of range is rejected. A new value applies to disks that are attached or
 * connected afterwards, unless the parameter's description says otherwise.
 */
#include <linux/cpumask.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "src/sys/helpers.h"

struct bounds {
	u32 value;
	u32 min;
	u32 max;
};

static int bounds_set(const char *text, const struct kernel_param *kp)
{
	struct bounds *bounds = kp->arg;
	u32 value;
	int err = kstrtouint(text, 0, &value);

	if (err)
		return err;
	if (value < bounds->min || value > bounds->max)
		return -ERANGE;
	WRITE_ONCE(bounds->value, value);
	return 0;
}

static int bounds_get(char *buffer, const struct kernel_param *kp)
{
	const struct bounds *bounds = kp->arg;

	return sysfs_emit(buffer, "%u\n", READ_ONCE(bounds->value));
}

static const struct kernel_param_ops bounds_ops = {
	.set = bounds_set,
	.get = bounds_get,
};

#define RANGE(name, default_, min_, max_, mode, text)			\
	static struct bounds name##_bounds = { default_, min_, max_ };	\
	module_param_cb(name, &bounds_ops, &name##_bounds, mode);		\
	__MODULE_PARM_TYPE(name, "uint");				\
	MODULE_PARM_DESC(name, text);					\
	u32 xbk_param_##name(void)					\
	{								\
		return READ_ONCE(name##_bounds.value);			\
	}

RANGE(max_buffer_pages, 1024, 0, 1048576, 0644,
      "Free pages that a ring keeps for mapping grants; applies at once")
RANGE(max_persistent_grants, 1056, 0, 16384, 0644,
      "Grants that stay mapped, per ring; a smaller value applies within ten seconds")
RANGE(persistent_grant_unused_seconds, 60, 0, 86400, 0644,
      "Seconds after which an unused grant is unmapped, 0 for never; applies at once")
RANGE(max_ring_page_order, 4, 0, 4, 0444,
      "Largest ring offered, as the logarithm of its pages")
RANGE(buffer_squeeze_duration_ms, 10, 0, 60000, 0644,
      "Milliseconds for which no free page is kept when memory is short; applies at once")
RANGE(max_guest_frames, 131072, 1024, 16777216, 0644,
      "Frames of 4 KiB that all disks of one guest should have mapped or copied at a time")

RANGE(default_tokens_refill, 0, 0, 1000000000, 0644,
      "Tokens per second for a disk that is attached without keys of its own, 0 for no limit")
RANGE(default_tokens_max, 0, 0, 1000000000, 0644,
      "Size of that bucket in tokens, 0 for a tenth of a second's refill")

/* xen-blkback's parameter is a number, and scripts may compare what they read: hence no bool. */
RANGE(log_stats, 0, 0, 1, 0644,
      "1: write each disk's statistics to the log every ten seconds; applies at once")

/* xbk_params_init() replaces 0, which cannot be written afterwards. */
RANGE(max_queues, 0, 0, 64, 0644,
      "Rings offered per disk (default: the number of processors)")
void xbk_params_init(void)
{
	if (!max_queues_bounds.value)
		max_queues_bounds.value = min(num_online_cpus(), 64U);
	max_queues_bounds.min = 1;
}

static bool feature_persistent = true;
module_param(feature_persistent, bool, 0644);
MODULE_PARM_DESC(feature_persistent, "Offer persistent grants");
bool xbk_param_feature_persistent(void)
{
	return READ_ONCE(feature_persistent);
}

/* Whose disks are served; src/logic/domains.rs says what the text means. */
static char domains[XBK_DOMAINS_SIZE];
static DEFINE_MUTEX(domains_lock);

static int domains_set(const char *text, const struct kernel_param *kp)
{
	size_t len = strlen(text);

	if (len && text[len - 1] == '\n')
		len--;
	/* The kernel's own parser of parameters cannot be given a quotation mark within a text. */
	if (strcspn(text, "\"\n") < len)
		return -EINVAL;
	if (len >= sizeof(domains))
		return -ENOSPC;
	guard(mutex)(&domains_lock);
	memcpy(domains, text, len);
	domains[len] = '\0';
	return 0;
}

static int domains_get(char *buffer, const struct kernel_param *kp)
{
	guard(mutex)(&domains_lock);
	return sysfs_emit(buffer, "%s\n", domains);
}

static const struct kernel_param_ops domains_ops = {
	.set = domains_set,
	.get = domains_get,
};
module_param_cb(domains, &domains_ops, NULL, 0644);
__MODULE_PARM_TYPE(domains, "string");
MODULE_PARM_DESC(domains,
		 "Names or UUIDs of the guests whose disks are served, with commas between (default: all)");

size_t xbk_param_domains(char *text, size_t size)
{
	guard(mutex)(&domains_lock);
	return scnprintf(text, size, "%s", domains);
}
