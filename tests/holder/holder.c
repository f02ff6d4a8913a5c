// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/holder0: a disk of zeroes that answers at once and, as drivers may that send pages
 * elsewhere, keeps references to pages for longer. Below /sys/module/holder/parameters:
 *
 * hold	so many of the requests to come keep their pages
 * held	pages that are kept; writing anything lets go of all
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/mm.h>
#include <linux/module.h>

#define MOST 64
#define SECTORS (16 << 11)

static struct gendisk *disk;
static DEFINE_SPINLOCK(lock);
static struct page *pages[MOST];
static unsigned int held;

static unsigned int hold;
module_param(hold, uint, 0644);
MODULE_PARM_DESC(hold, "Requests to come that keep their pages");

static void let_go(void)
{
	spin_lock_irq(&lock);
	while (held)
		put_page(pages[--held]);
	spin_unlock_irq(&lock);
}

static int held_set(const char *text, const struct kernel_param *param)
{
	let_go();
	return 0;
}

static int held_get(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%u\n", READ_ONCE(held));
}

static const struct kernel_param_ops held_ops = {
	.set = held_set,
	.get = held_get,
};
module_param_cb(held, &held_ops, NULL, 0644);
MODULE_PARM_DESC(held, "Pages that are kept");

static void keep(struct bio *bio)
{
	struct bvec_iter iter;
	struct bio_vec piece;

	spin_lock_irq(&lock);
	if (hold) {
		hold--;
		bio_for_each_segment(piece, bio, iter) {
			if (held == MOST)
				break;
			get_page(piece.bv_page);
			pages[held++] = piece.bv_page;
		}
	}
	spin_unlock_irq(&lock);
}

static void holder_submit_bio(struct bio *bio)
{
	keep(bio);
	if (bio_op(bio) == REQ_OP_READ)
		zero_fill_bio(bio);
	bio_endio(bio);
}

static const struct block_device_operations holder_ops = {
	.owner = THIS_MODULE,
	.submit_bio = holder_submit_bio,
};

static int __init holder_init(void)
{
	struct queue_limits limits = { .logical_block_size = SECTOR_SIZE };
	int err;

	disk = blk_alloc_disk(&limits, NUMA_NO_NODE);
	if (IS_ERR(disk))
		return PTR_ERR(disk);
	disk->fops = &holder_ops;
	strscpy(disk->disk_name, "holder0");
	set_capacity(disk, SECTORS);
	err = add_disk(disk);
	if (err)
		put_disk(disk);
	return err;
}

static void __exit holder_exit(void)
{
	del_gendisk(disk);
	put_disk(disk);
	let_go();
}

module_init(holder_init);
module_exit(holder_exit);
MODULE_DESCRIPTION("A disk that keeps pages after its answer, for tests");
MODULE_LICENSE("GPL");
