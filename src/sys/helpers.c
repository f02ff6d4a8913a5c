// SPDX-License-Identifier: GPL-2.0
/*
 * Rust cannot call inline functions and macros. Each helper here is a function for some of them;
 * see helpers.h.
 */
#include <linux/blkdev.h>
#include <linux/cdrom.h>
#include <linux/cgroup.h>
#include <linux/file.h>
#include <linux/freezer.h>
#include <linux/fs.h>
#include <linux/ioprio.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/preempt.h>
#include <linux/random.h>
#include <linux/sched/task.h>

#include "src/sys/helpers.h"

void xbk_disk_read(struct block_device *bdev, struct xbk_disk *disk)
{
	*disk = (struct xbk_disk) {
		.sectors = bdev_nr_sectors(bdev),
		.logical_block_size = bdev_logical_block_size(bdev),
		.physical_block_size = bdev_physical_block_size(bdev),
		.write_cache = bdev_write_cache(bdev),
		.cdrom = disk_to_cdi(bdev->bd_disk) != NULL,
		.removable = bdev->bd_disk->flags & GENHD_FL_REMOVABLE,
		.discard_sectors = bdev_max_discard_sectors(bdev),
		.discard_granularity = bdev_discard_granularity(bdev),
		.discard_alignment = bdev_discard_alignment(bdev),
		.secure_erase_sectors = bdev_max_secure_erase_sectors(bdev),
		.zoned = bdev_is_zoned(bdev),
	};
}

u64 xbk_disk_sectors(struct block_device *bdev)
{
	return bdev_nr_sectors(bdev);
}

bool xbk_disk_is_read_only(struct block_device *bdev)
{
	return bdev_read_only(bdev);
}

bool xbk_disk_merges_late(struct block_device *bdev)
{
	struct request_queue *q = bdev_get_queue(bdev);

	return !queue_is_mq(q) || q->elevator || bdev_rot(bdev);
}

struct file *xbk_disk_open(u32 major, u32 minor, bool write)
{
	return bdev_file_open_by_dev(MKDEV(major, minor),
				     BLK_OPEN_READ | (write ? BLK_OPEN_WRITE : 0),
				     NULL, NULL);
}

struct block_device *xbk_disk_of(struct file *file)
{
	return file_bdev(file);
}

int xbk_disk_uncache(struct block_device *bdev)
{
	int err = sync_blockdev(bdev);

	/* This may fail for pages that are in use in this domain, which is not an error. */
	invalidate_inode_pages2(bdev->bd_mapping);
	return err;
}

void xbk_disk_close(struct file *file)
{
	get_file(file);
	bdev_fput(file);
	__fput_sync(file);
}

int xbk_disk_discard(struct block_device *bdev, u64 sector, u64 sectors,
		     bool secure)
{
	if (secure)
		return blkdev_issue_secure_erase(bdev, sector, sectors,
						 GFP_KERNEL);
	return blkdev_issue_discard(bdev, sector, sectors, GFP_KERNEL);
}

void xbk_plug_expect(struct blk_plug *plug, u16 bios)
{
	/* blk_start_plug_nr_ios() does the same, but is not exported to modules. */
	plug->nr_ios = bios;
}

void xbk_preempt_disable(void)
{
	preempt_disable();
}

void xbk_preempt_enable(void)
{
	preempt_enable();
}

struct task_struct *xbk_thread_create(int (*run)(void *data), void *data,
				      const char *name)
{
	struct task_struct *task = kthread_create(run, data, "%s", name);

	if (!IS_ERR(task))
		get_task_struct(task);
	return task;
}

void xbk_thread_begin(void)
{
	set_freezable();
}

void xbk_thread_prepare_to_sleep(void)
{
	/* Unlike TASK_UNINTERRUPTIBLE, this does not count in the load average. */
	set_current_state(TASK_IDLE | TASK_FREEZABLE);
}

void xbk_thread_sleep(u32 max_ms)
{
	schedule_timeout(max_ms ? msecs_to_jiffies(max_ms) :
				  MAX_SCHEDULE_TIMEOUT);
}

void xbk_thread_finish_sleep(void)
{
	__set_current_state(TASK_RUNNING);
	cond_resched();
	try_to_freeze();
}

void xbk_raw_lock_init(raw_spinlock_t *lock, const char *name)
{
	static struct lock_class_key key;

	raw_spin_lock_init(lock);
	lockdep_set_class_and_name(lock, &key, name);
}

unsigned long xbk_raw_lock(raw_spinlock_t *lock)
{
	unsigned long flags;

	raw_spin_lock_irqsave(lock, flags);
	return flags;
}

void xbk_raw_unlock(raw_spinlock_t *lock, unsigned long flags)
{
	raw_spin_unlock_irqrestore(lock, flags);
}

void xbk_io_context_adopt(struct task_struct *task)
{
#ifdef CONFIG_BLK_CGROUP
	struct cgroup_subsys_state *css = task_get_css(task, io_cgrp_id);

	kthread_associate_blkcg(css);
	css_put(css);
#endif
	int prio;

	task_lock(task);
	prio = __get_task_ioprio(task);
	task_unlock(task);
	/* Without memory for it the priority is the usual one. */
	set_task_ioprio(current, prio);
}

void xbk_io_context_reset(void)
{
#ifdef CONFIG_BLK_CGROUP
	kthread_associate_blkcg(NULL);
#endif
	set_task_ioprio(current, IOPRIO_DEFAULT);
}

u32 xbk_random_u32(void)
{
	return get_random_u32();
}

void xbk_module_get(void)
{
	__module_get(THIS_MODULE);
}

void xbk_module_put(void)
{
	module_put(THIS_MODULE);
}
