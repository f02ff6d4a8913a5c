// SPDX-License-Identifier: GPL-2.0
/*
 * Grants dom0 frames that this guest does not own, as no honest kernel does:
 * insmod granter.ko frames=0xfee00,0x1000; the references are then in
 * /sys/module/granter/parameters/grefs, in the same order.
 */
#include <linux/module.h>
#include <xen/grant_table.h>

#define MOST 8

static unsigned long frames[MOST];
static unsigned int count;
module_param_array(frames, ulong, &count, 0444);
MODULE_PARM_DESC(frames, "Machine frame numbers");

static int grefs[MOST];
static unsigned int granted;
module_param_array(grefs, int, &granted, 0444);
MODULE_PARM_DESC(grefs, "Grant references, for reading only");

static void granter_exit(void)
{
	while (granted)
		gnttab_end_foreign_access(grefs[--granted], NULL);
}

static int __init granter_init(void)
{
	int gref;

	for (granted = 0; granted < count; granted++) {
		gref = gnttab_grant_foreign_access(0, frames[granted], 0);
		if (gref < 0) {
			granter_exit();
			return gref;
		}
		grefs[granted] = gref;
	}
	return 0;
}

module_init(granter_init);
module_exit(granter_exit);
MODULE_DESCRIPTION("Grants of frames that are not the guest's, for tests");
MODULE_LICENSE("GPL");
