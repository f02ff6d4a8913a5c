/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the block and module headers offer as inline functions and macros only.
 */
#ifndef RBLKBACK_SYS_HELPERS_H
#define RBLKBACK_SYS_HELPERS_H

#include <linux/blk_types.h>
#include <linux/types.h>

struct file;
struct module;

/* What a frontend is told of a disk, read in one go. Sizes in bytes unless named. */
struct xbk_disk {
	u64 sectors;			/* of 512 bytes */
	u32 logical_block_size;
	u32 physical_block_size;
	bool write_cache;
	bool cdrom;
	bool removable;
};

void xbk_disk_read(struct block_device *bdev, struct xbk_disk *disk);
u64 xbk_disk_sectors(struct block_device *bdev);
bool xbk_disk_is_read_only(struct block_device *bdev);
/* Opens @major:@minor for reading, and for writing if @write. ERR_PTR on failure. */
struct file *xbk_disk_open(u32 major, u32 minor, bool write);
struct block_device *xbk_disk_of(struct file *file);
/*
 * Writes the page cache of the device back and drops what is not in use. May
 * sleep for long.
 */
int xbk_disk_uncache(struct block_device *bdev);

/* A bio of @vecs empty segments that is never refused: it waits for the pool. */
struct bio *xbk_bio_alloc(struct block_device *bdev, u16 vecs, u32 opf);

void xbk_module_get(struct module *module);

#endif
