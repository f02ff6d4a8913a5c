// SPDX-License-Identifier: GPL-2.0
/*
 * See helpers.h.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/cdrom.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/random.h>

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
		.secure_erase = bdev_max_secure_erase_sectors(bdev) != 0,
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

	/* Pages that somebody in this domain uses stay; that is theirs to know. */
	invalidate_inode_pages2(bdev->bd_mapping);
	return err;
}

int xbk_disk_discard(struct block_device *bdev, u64 sector, u64 sectors,
		     bool secure)
{
	if (secure)
		return blkdev_issue_secure_erase(bdev, sector, sectors,
						 GFP_KERNEL);
	return blkdev_issue_discard(bdev, sector, sectors, GFP_KERNEL);
}

struct bio *xbk_bio_alloc(struct block_device *bdev, u16 vecs, u32 opf)
{
	return bio_alloc(bdev, vecs, opf, GFP_NOIO);
}

u32 xbk_random_u32(void)
{
	return get_random_u32();
}

void xbk_module_get(struct module *module)
{
	__module_get(module);
}
