/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the block and module headers offer as inline functions and macros only.
 */
#ifndef RBLKBACK_SYS_HELPERS_H
#define RBLKBACK_SYS_HELPERS_H

#include <linux/blk_types.h>
#include <linux/types.h>

struct blk_plug;
struct file;
struct task_struct;

/* What a frontend is told of a disk, read in one go. Sizes in bytes unless named. */
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
	bool secure_erase;
};

void xbk_disk_read(struct block_device *bdev, struct xbk_disk *disk);
u64 xbk_disk_sectors(struct block_device *bdev);
bool xbk_disk_is_read_only(struct block_device *bdev);
/*
 * May something later than a batch of bios profit from a merge with one of them: a
 * scheduler, a queue below, a seek?
 */
bool xbk_disk_merges_late(struct block_device *bdev);
/* Opens @major:@minor for reading, and for writing if @write. ERR_PTR on failure. */
struct file *xbk_disk_open(u32 major, u32 minor, bool write);
struct block_device *xbk_disk_of(struct file *file);
/*
 * Writes the page cache of the device back and drops what is not in use. May
 * sleep for long.
 */
int xbk_disk_uncache(struct block_device *bdev);

/* Discards, or erases if @secure; waits for the device. */
int xbk_disk_discard(struct block_device *bdev, u64 sector, u64 sectors,
		     bool secure);

/*
 * So many bios come next: the block layer sets as many requests aside with the first,
 * and gives back what was not used at the end of the plug or when the task sleeps.
 */
void xbk_plug_expect(struct blk_plug *plug, u16 bios);

void xbk_preempt_disable(void);
void xbk_preempt_enable(void);

/*
 * Creates a kernel thread that has yet to be woken, with a reference for the caller, which
 * kthread_stop_put() gives back. ERR_PTR on failure.
 */
struct task_struct *xbk_thread_create(int (*run)(void *data), void *data,
				      const char *name);
/* From here on a wake-up keeps the current thread from sleeping in xbk_thread_sleep(). */
void xbk_thread_prepare_to_sleep(void);
/* Sleeps until the current thread is woken; if @most is not 0, so many ms at most. */
void xbk_thread_sleep(u32 most);
/* The current thread has something to do. Lets others run if they have waited for long. */
void xbk_thread_finish_sleep(void);

/* Module parameters, as they are now: see params.c. */
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
/* Puts in defaults that depend on the machine. */
void xbk_params_init(void);

/* Tracepoints: see trace.h. */
void xbk_trace_admit(u16 domain, u32 device, u8 ring, u32 requests);
void xbk_trace_throttle(u16 domain, u32 device, u8 ring, u32 requests);
void xbk_trace_wake(u16 domain, u32 device, u8 ring);
void xbk_trace_limit(u16 domain, u32 device, u32 refill, u32 max);

u32 xbk_random_u32(void);
void xbk_module_get(void);
void xbk_module_put(void);

#endif
