/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Functions for what the block, scheduler and module headers declare as inline functions and macros
 * only, and for the module's C objects. bindgen and the C compiler read the same prototypes.
 */
#ifndef RBLKBACK_SYS_HELPERS_H
#define RBLKBACK_SYS_HELPERS_H

#include <linux/blk_types.h>
#include <linux/spinlock_types.h>
#include <linux/types.h>

/* Bytes of the parameter domains at most, with a NUL. */
#define XBK_DOMAINS_SIZE	4000

struct blk_plug;
struct file;
struct task_struct;

/* The properties of a block device. Sizes are in bytes unless noted. */
struct xbk_disk {
	u64 sectors;			/* of 512 bytes */
	u32 logical_block_size;
	u32 physical_block_size;
	bool write_cache;
	bool cdrom;
	bool removable;
	u32 discard_sectors;		/* of 512 bytes */
	u32 discard_granularity;
	u32 discard_alignment;
	u32 secure_erase_sectors;	/* of 512 bytes */
	bool zoned;
};

/* Reads the properties of @bdev into @disk. Context: any. */
void xbk_disk_read(struct block_device *bdev, struct xbk_disk *disk);
/* Returns the size of @bdev in sectors of 512 bytes. Context: any. */
u64 xbk_disk_sectors(struct block_device *bdev);
/* Returns whether @bdev is read-only. Context: any. */
bool xbk_disk_is_read_only(struct block_device *bdev);
/*
 * Returns whether a bio for @bdev may profit from a merge with one that is submitted later: @bdev
 * has an I/O scheduler or is rotational, or another queue is below it. Context: any.
 */
bool xbk_disk_merges_late(struct block_device *bdev);
/*
 * Opens the block device @major:@minor for reading, and with @write also for writing. Returns an
 * ERR_PTR on failure. Sleeps.
 */
struct file *xbk_disk_open(u32 major, u32 minor, bool write);
/* Returns the block device of @file. */
struct block_device *xbk_disk_of(struct file *file);
/*
 * Writes the dirty pages of the page cache of @bdev back and drops all pages that are not in use.
 * Sleeps until the device has finished.
 */
int xbk_disk_uncache(struct block_device *bdev);

/*
 * Closes the block device of @file, and takes over the caller's reference. The device is free when
 * this returns; bdev_fput() alone leaves that to a work item. Sleeps.
 */
void xbk_disk_close(struct file *file);

/*
 * Discards @sectors sectors of 512 bytes from @sector on, or erases them with @secure. Sleeps until
 * the device has finished.
 */
int xbk_disk_discard(struct block_device *bdev, u64 sector, u64 sectors,
		     bool secure);

/*
 * Announces that the current task submits @bios bios next. With the first of them the block layer
 * allocates that many requests. It frees the unused ones when the plug is finished or the task
 * sleeps.
 */
void xbk_plug_expect(struct blk_plug *plug, u16 bios);

/* A raw spinlock, taken with interrupts off; unlocking takes what locking returned. Context: any. */
void xbk_raw_lock_init(raw_spinlock_t *lock, const char *name);
unsigned long xbk_raw_lock(raw_spinlock_t *lock);
void xbk_raw_unlock(raw_spinlock_t *lock, unsigned long flags);

/*
 * A spinlock, taken with interrupts off, or on PREEMPT_RT a sleeping lock. Unlocking takes what locking
 * returned, or stored in @flags. Before Linux 7.3 only, see compat.c.
 */
unsigned long xbk_spin_lock(spinlock_t *lock);
bool xbk_spin_trylock(spinlock_t *lock, unsigned long *flags);
void xbk_spin_unlock(spinlock_t *lock, unsigned long flags);

void xbk_preempt_disable(void);
void xbk_preempt_enable(void);

/*
 * Creates a kernel thread, which runs after its first wake_up_process(). Returns the task with a
 * reference, which kthread_stop_put() puts, or an ERR_PTR. Sleeps.
 */
struct task_struct *xbk_thread_create(int (*run)(void *data), void *data,
				      const char *name);
/* Has the current thread, which has just begun, freeze with the system. */
void xbk_thread_begin(void);
/* Sets the task state. A wakeup from here on makes the next xbk_thread_sleep() return at once. */
void xbk_thread_prepare_to_sleep(void);
/* Sleeps until the current thread is woken, but at most @max_ms ms if that is not 0. */
void xbk_thread_sleep(u32 max_ms);
/*
 * Sets the current thread running, yields the processor if another task should run, and freezes if
 * the system does: the caller must hold no lock.
 */
void xbk_thread_finish_sleep(void);

/*
 * What the current worker of a workqueue sends to a device counts for the I/O cgroup of @task and has its
 * I/O priority, until xbk_io_context_reset(). Context: process; may sleep.
 */
void xbk_io_context_adopt(struct task_struct *task);
void xbk_io_context_reset(void);

/* The current values of the module parameters, see params.c. Context: any. */
u32 xbk_param_max_buffer_pages(void);
u32 xbk_param_max_persistent_grants(void);
u32 xbk_param_persistent_grant_unused_seconds(void);
u32 xbk_param_max_queues(void);
u32 xbk_param_max_ring_page_order(void);
bool xbk_param_feature_persistent(void);
u32 xbk_param_buffer_squeeze_duration_ms(void);
u32 xbk_param_max_guest_frames(void);
u32 xbk_param_log_stats(void);
u32 xbk_param_default_tokens_refill(void);
u32 xbk_param_default_tokens_max(void);
/* Copies the text of the parameter domains to @text, of @size bytes. Returns its length. Sleeps. */
size_t xbk_param_domains(char *text, size_t size);
/* Sets the defaults that depend on the machine. */
void xbk_params_init(void);

/* Tracepoints, see trace.h. Context: any. */
void xbk_trace_admit(u16 domain, u32 device, u8 ring, u32 requests);
void xbk_trace_throttle(u16 domain, u32 device, u8 ring, u32 requests);
void xbk_trace_wake(u16 domain, u32 device, u8 ring);
void xbk_trace_limit(u16 domain, u32 device, u32 refill, u32 max);

u32 xbk_random_u32(void);
/* Take and put a reference to this module. */
void xbk_module_get(void);
void xbk_module_put(void);

#endif
