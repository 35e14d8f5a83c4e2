// SPDX-License-Identifier: GPL-2.0
/*
 * A memory balloon in the page cache: virtio device 13, see docs/cache-balloon.md.
 *
 * The balloon is the page cache of one inode that nobody can open. A folio that
 * was added is told to the host, which takes its memory away before it answers;
 * until then the driver holds a reference, so that neither reclaim nor migration
 * gets at the folio. Afterwards it is an ordinary clean page of the page cache:
 * reclaim takes it when the guest needs memory, and the first access to the page
 * makes the host give memory again. What a folio contains is nobody's business.
 */
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/pseudo_fs.h>
#include <linux/swap.h>
#include <linux/version.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

#include "virtio_cache_balloon.h"

#define CACHE_BALLOON_MAGIC 0x62616c63
/* Folios do not cross the borders of such chunks of the file. */
#define MAX_ORDER_USED 9
#define CHUNK_PAGES (1UL << MAX_ORDER_USED)
/* A buffer may always have that many pages. */
#define MIN_IN_FLIGHT 64UL

static unsigned int backoff_ms = 200;
module_param(backoff_ms, uint, 0644);
MODULE_PARM_DESC(backoff_ms, "Grow no more for this long after reclaim took pages of the balloon");

static unsigned int retry_ms = 1000;
module_param(retry_ms, uint, 0644);
MODULE_PARM_DESC(retry_ms, "Try again after this long when the guest had no memory to give");

static unsigned int references = 1;
module_param(references, uint, 0644);
MODULE_PARM_DESC(references, "How often a new page is marked as accessed: more keeps it longer against cold cache");

enum { CACHEQ, RECLAIMQ, QUEUES };

struct cache_balloon {
	struct virtio_device *vdev;
	struct virtqueue *vqs[QUEUES];
	struct inode *inode;
	struct workqueue_struct *wq;
	struct delayed_work work;
	wait_queue_head_t acked;

	/* Protects `stopped` against work that is queued from elsewhere. */
	spinlock_t stop_lock;
	bool stopped;

	bool has_ranges;
	bool has_tell;
	bool has_lock;

	/* Of the file: what was used before `oldest` is empty, and from `next` on. */
	pgoff_t oldest;
	pgoff_t next;
	atomic_long_t pages;
	bool was_reclaimed;
	u32 actual;

	/* What the buffer to be sent names, and holds references to. */
	struct folio *folios[VIRTIO_CACHE_BALLOON_ENTRIES];
	unsigned int nr_folios;
	unsigned int nr_entries;
	unsigned long nr_pages;
	void *buffer;

	/* Taken by reclaim and not told yet. There is a slot for each folio of the balloon. */
	spinlock_t taken_lock;
	u64 *taken;
	unsigned long taken_first;
	unsigned long taken_count;
	unsigned long nr_present;
	unsigned long slots;
	void *taken_buffer;
};

static struct vfsmount *cache_balloon_mnt;
/* A guest has one: free_folio is told of a folio and of nothing else. */
static struct cache_balloon *the_balloon;

static void wake(struct cache_balloon *cb, unsigned int delay_ms)
{
	unsigned long flags;

	spin_lock_irqsave(&cb->stop_lock, flags);
	if (!cb->stopped)
		queue_delayed_work(cb->wq, &cb->work, msecs_to_jiffies(delay_ms));
	spin_unlock_irqrestore(&cb->stop_lock, flags);
}

static u64 range_entry(struct folio *folio)
{
	return ((u64)folio_pfn(folio) << PAGE_SHIFT) |
	       (folio_order(folio) + PAGE_SHIFT - VIRTIO_CACHE_BALLOON_PFN_SHIFT);
}

/* Needs taken_lock, and a slot. */
static void note_taken(struct cache_balloon *cb, struct folio *folio)
{
	unsigned long at = (cb->taken_first + cb->taken_count++) % cb->slots;

	cb->taken[at] = range_entry(folio);
}

/* A folio left the page cache, whoever took it. Called from within reclaim. */
static void cache_balloon_free_folio(struct folio *folio)
{
	struct cache_balloon *cb = the_balloon;
	unsigned long flags;

	WRITE_ONCE(cb->was_reclaimed, true);
	wake(cb, backoff_ms);
	spin_lock_irqsave(&cb->taken_lock, flags);
	atomic_long_sub(folio_nr_pages(folio), &cb->pages);
	if (cb->has_tell)
		note_taken(cb, folio);
	/* Last of all: whoever sees 0 may free the device. */
	cb->nr_present--;
	spin_unlock_irqrestore(&cb->taken_lock, flags);
}

/* The new folio takes the old one's place; its memory is the host's loss until it is reclaimed. */
static int cache_balloon_migrate_folio(struct address_space *mapping, struct folio *dst,
				       struct folio *src, enum migrate_mode mode)
{
	struct cache_balloon *cb = the_balloon;
	unsigned long flags;
	int err;

	if (cb->has_tell) {
		spin_lock_irqsave(&cb->taken_lock, flags);
		if (cb->taken_count + cb->nr_present >= cb->slots) {
			spin_unlock_irqrestore(&cb->taken_lock, flags);
			return -EAGAIN;
		}
		/* Keeps the slot. */
		cb->nr_present++;
		spin_unlock_irqrestore(&cb->taken_lock, flags);
	}
	err = folio_migrate_mapping(mapping, dst, src, 0);
	if (!err)
		folio_migrate_flags(dst, src);
	if (cb->has_tell) {
		spin_lock_irqsave(&cb->taken_lock, flags);
		cb->nr_present--;
		if (!err)
			note_taken(cb, src);
		spin_unlock_irqrestore(&cb->taken_lock, flags);
		wake(cb, retry_ms);
	}
	return err;
}

static const struct address_space_operations cache_balloon_aops = {
	.free_folio = cache_balloon_free_folio,
	.migrate_folio = cache_balloon_migrate_folio,
	.dirty_folio = noop_dirty_folio,
};

static void cache_balloon_acked(struct virtqueue *vq)
{
	struct cache_balloon *cb = vq->vdev->priv;

	wake_up(&cb->acked);
}

/* Sends a buffer and waits for the host; it is idle time, however long that takes. */
static int send(struct cache_balloon *cb, struct virtqueue *vq, void *buffer, unsigned int bytes)
{
	struct scatterlist sg;
	unsigned int unused;
	int err;

	sg_init_one(&sg, buffer, bytes);
	err = virtqueue_add_outbuf(vq, &sg, 1, buffer, GFP_KERNEL);
	if (err)
		return err;
	virtqueue_kick(vq);
	wait_event_idle(cb->acked, virtqueue_get_buf(vq, &unused) || virtqueue_is_broken(vq));
	return virtqueue_is_broken(vq) ? -EIO : 0;
}

/* Must be done before the same pages are given up again. */
static int tell_taken(struct cache_balloon *cb)
{
	__le64 *entries = cb->taken_buffer;

	while (cb->has_tell) {
		unsigned int count = 0;
		int err;

		spin_lock_irq(&cb->taken_lock);
		while (cb->taken_count && count < VIRTIO_CACHE_BALLOON_ENTRIES) {
			entries[count++] = cpu_to_le64(cb->taken[cb->taken_first]);
			cb->taken_first = (cb->taken_first + 1) % cb->slots;
			cb->taken_count--;
		}
		spin_unlock_irq(&cb->taken_lock);
		if (!count)
			return 0;
		if (!cb->has_ranges) {
			unsigned int n;

			/* One that is larger than a page was never made. */
			for (n = 0; n < count; n++)
				((__le32 *)entries)[n] =
					cpu_to_le32(le64_to_cpu(entries[n]) >> VIRTIO_CACHE_BALLOON_PFN_SHIFT);
		}
		err = send(cb, cb->vqs[RECLAIMQ], entries, count * (cb->has_ranges ? 8 : 4));
		if (err)
			return err;
		cond_resched();
	}
	return 0;
}

/* What the buffer names is the host's once it is acked, and reclaim's once it is put. */
static int give_up(struct cache_balloon *cb)
{
	unsigned int n;
	int err;

	if (!cb->nr_folios)
		return 0;
	err = tell_taken(cb);
	if (!err)
		err = send(cb, cb->vqs[CACHEQ], cb->buffer, cb->nr_entries * (cb->has_ranges ? 8 : 4));
	for (n = 0; n < cb->nr_folios; n++)
		folio_put(cb->folios[n]);
	cb->nr_folios = 0;
	cb->nr_entries = 0;
	cb->nr_pages = 0;
	return err;
}

static struct folio *take_folio(unsigned int most, bool *short_of)
{
	const gfp_t gfp = GFP_HIGHUSER_MOVABLE | __GFP_NORETRY | __GFP_NOWARN | __GFP_NOMEMALLOC;
	struct folio *folio;
	unsigned int order;

	/* Large where it is free; what is worth an effort is a page. */
	for (order = most; order > 0; order--) {
		folio = folio_alloc(gfp & ~__GFP_RECLAIM, order);
		if (folio)
			return folio;
	}
	folio = folio_alloc(gfp, 0);
	*short_of = !folio;
	return folio;
}

/* One more folio of at most `room` pages in the balloon and in the buffer. */
static int add_folio(struct cache_balloon *cb, unsigned long room, bool *short_of)
{
	struct address_space *mapping = cb->inode->i_mapping;
	unsigned int most = min_t(unsigned int, MAX_ORDER_USED, ilog2(room));
	struct folio *folio;
	unsigned int n;
	pgoff_t index;
	int err;

	/* Without ranges a folio has an entry for each page, and is told as reclaimed by one. */
	if (!cb->has_ranges)
		most = 0;
	folio = take_folio(most, short_of);
	if (!folio)
		return -ENOMEM;
	index = round_up(cb->next, folio_nr_pages(folio));
	spin_lock_irq(&cb->taken_lock);
	cb->nr_present++;
	spin_unlock_irq(&cb->taken_lock);
	atomic_long_add(folio_nr_pages(folio), &cb->pages);
	err = filemap_add_folio(mapping, folio, index, GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
	if (err) {
		atomic_long_sub(folio_nr_pages(folio), &cb->pages);
		spin_lock_irq(&cb->taken_lock);
		cb->nr_present--;
		spin_unlock_irq(&cb->taken_lock);
		folio_put(folio);
		*short_of = true;
		return err;
	}
	cb->next = index + folio_nr_pages(folio);
	folio_mark_uptodate(folio);
	for (n = 0; n < references; n++)
		folio_mark_accessed(folio);
	folio_unlock(folio);
	cb->folios[cb->nr_folios++] = folio;
	cb->nr_pages += folio_nr_pages(folio);
	if (cb->has_ranges) {
		((__le64 *)cb->buffer)[cb->nr_entries++] = cpu_to_le64(range_entry(folio));
	} else {
		u32 pfn = folio_pfn(folio) << (PAGE_SHIFT - VIRTIO_CACHE_BALLOON_PFN_SHIFT);

		for (n = 0; n < PAGE_SIZE >> VIRTIO_CACHE_BALLOON_PFN_SHIFT; n++)
			((__le32 *)cb->buffer)[cb->nr_entries++] = cpu_to_le32(pfn + n);
	}
	return 0;
}

/* Takes pages from the front of the file until no more than `most` are left. */
static void shrink(struct cache_balloon *cb, unsigned long most)
{
	struct address_space *mapping = cb->inode->i_mapping;

	while ((unsigned long)atomic_long_read(&cb->pages) > most && cb->oldest < cb->next) {
		loff_t from = (loff_t)cb->oldest << PAGE_SHIFT;

		cb->oldest = round_down(cb->oldest, CHUNK_PAGES) + CHUNK_PAGES;
		truncate_inode_pages_range(mapping, from, ((loff_t)cb->oldest << PAGE_SHIFT) - 1);
		cond_resched();
	}
	cb->next = max(cb->next, cb->oldest);
	/* It was not the guest that was short of them. */
	WRITE_ONCE(cb->was_reclaimed, false);
}

/* Reclaim may have taken a folio out of the file and not said so yet. */
static void shrink_to_nothing(struct cache_balloon *cb)
{
	shrink(cb, 0);
	for (;;) {
		bool gone;

		spin_lock_irq(&cb->taken_lock);
		gone = !cb->nr_present;
		spin_unlock_irq(&cb->taken_lock);
		if (gone)
			return;
		msleep(1);
	}
}

static u32 to_wire(unsigned long pages)
{
	return pages << (PAGE_SHIFT - VIRTIO_CACHE_BALLOON_PFN_SHIFT);
}

static void write_actual(struct cache_balloon *cb)
{
	u32 actual = to_wire(atomic_long_read(&cb->pages));

	if (actual == cb->actual)
		return;
	cb->actual = actual;
	virtio_cwrite_le(cb->vdev, struct virtio_cache_balloon_config, actual, &actual);
}

static void write_stats(struct cache_balloon *cb)
{
	struct virtio_device *vdev = cb->vdev;
	u32 wanted, value;

	virtio_cread_le(vdev, struct virtio_cache_balloon_config, need_stats, &wanted);
	if (!wanted)
		return;
	value = to_wire(totalram_pages());
	virtio_cwrite_le(vdev, struct virtio_cache_balloon_config, pages_total, &value);
	value = to_wire(global_zone_page_state(NR_FREE_PAGES));
	virtio_cwrite_le(vdev, struct virtio_cache_balloon_config, pages_free, &value);
	value = 0;
	virtio_cwrite_le(vdev, struct virtio_cache_balloon_config, need_stats, &value);
}

static bool locked(struct cache_balloon *cb)
{
	u32 lock = 0, is;

	if (!cb->has_lock)
		return false;
	virtio_cread_le(cb->vdev, struct virtio_cache_balloon_config, lock, &lock);
	virtio_cread_le(cb->vdev, struct virtio_cache_balloon_config, locked, &is);
	if (!!lock == !!is)
		return lock;
	if (lock) {
		shrink_to_nothing(cb);
		tell_taken(cb);
		write_actual(cb);
	}
	is = !!lock;
	virtio_cwrite_le(cb->vdev, struct virtio_cache_balloon_config, locked, &is);
	return lock;
}

static bool has_slot(struct cache_balloon *cb)
{
	bool has;

	spin_lock_irq(&cb->taken_lock);
	has = cb->taken_count + cb->nr_present < cb->slots;
	spin_unlock_irq(&cb->taken_lock);
	return has;
}

static void cache_balloon_work(struct work_struct *work)
{
	struct cache_balloon *cb = container_of(to_delayed_work(work), struct cache_balloon, work);
	unsigned int most_entries = VIRTIO_CACHE_BALLOON_ENTRIES -
				    (PAGE_SIZE >> VIRTIO_CACHE_BALLOON_PFN_SHIFT) + 1;
	bool short_of = false;
	unsigned long target, most_pages;
	u32 num_pages;

	write_stats(cb);
	if (locked(cb))
		return;
	virtio_cread_le(cb->vdev, struct virtio_cache_balloon_config, num_pages, &num_pages);
	target = num_pages >> (PAGE_SHIFT - VIRTIO_CACHE_BALLOON_PFN_SHIFT);
	if ((unsigned long)atomic_long_read(&cb->pages) > target)
		shrink(cb, target);
	if (READ_ONCE(cb->was_reclaimed)) {
		/* The guest is using memory: stand back, and look again. */
		WRITE_ONCE(cb->was_reclaimed, false);
		short_of = true;
	}
	/*
	 * What the host has yet to ack cannot be reclaimed, and the host may be away
	 * for a while: it must be little against what can be reclaimed meanwhile.
	 */
	most_pages = max((unsigned long)atomic_long_read(&cb->pages) / 4, MIN_IN_FLIGHT);
	while (!short_of && cb->nr_entries < most_entries && cb->nr_pages < most_pages &&
	       has_slot(cb)) {
		unsigned long pages = atomic_long_read(&cb->pages);

		if (pages >= target ||
		    add_folio(cb, min(target - pages, most_pages - cb->nr_pages), &short_of))
			break;
	}
	if (give_up(cb) || tell_taken(cb))
		return;
	write_actual(cb);
	if ((unsigned long)atomic_long_read(&cb->pages) < target)
		wake(cb, READ_ONCE(cb->was_reclaimed) ? backoff_ms : short_of ? retry_ms : 0);
}

static void cache_balloon_changed(struct virtio_device *vdev)
{
	struct cache_balloon *cb = vdev->priv;
	unsigned long flags;

	spin_lock_irqsave(&cb->stop_lock, flags);
	if (!cb->stopped)
		mod_delayed_work(cb->wq, &cb->work, 0);
	spin_unlock_irqrestore(&cb->stop_lock, flags);
}

static int find_queues(struct cache_balloon *cb)
{
	unsigned int count = cb->has_tell ? 2 : 1;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
	struct virtqueue_info queues[QUEUES] = {
		{ .name = "cache", .callback = cache_balloon_acked },
		{ .name = "reclaim", .callback = cache_balloon_acked },
	};

	return virtio_find_vqs(cb->vdev, count, cb->vqs, queues, NULL);
#else
	vq_callback_t *callbacks[QUEUES] = { cache_balloon_acked, cache_balloon_acked };
	static const char *const names[QUEUES] = { "cache", "reclaim" };

	return virtio_find_vqs(cb->vdev, count, cb->vqs, callbacks, names, NULL);
#endif
}

static void start_balloon(struct cache_balloon *cb)
{
	virtio_device_ready(cb->vdev);
	cb->actual = 0;
	spin_lock_irq(&cb->stop_lock);
	cb->stopped = false;
	spin_unlock_irq(&cb->stop_lock);
	wake(cb, 0);
}

/* Afterwards the balloon is empty and the device is reset. */
static void halt_balloon(struct cache_balloon *cb)
{
	spin_lock_irq(&cb->stop_lock);
	cb->stopped = true;
	spin_unlock_irq(&cb->stop_lock);
	cancel_delayed_work_sync(&cb->work);
	shrink_to_nothing(cb);
	tell_taken(cb);
	write_actual(cb);
	virtio_reset_device(cb->vdev);
	cb->vdev->config->del_vqs(cb->vdev);
}

static void free_balloon(struct cache_balloon *cb)
{
	if (cb->inode)
		iput(cb->inode);
	if (cb->wq)
		destroy_workqueue(cb->wq);
	kvfree(cb->taken);
	kfree(cb->buffer);
	kfree(cb->taken_buffer);
	kfree(cb);
}

static int cache_balloon_probe(struct virtio_device *vdev)
{
	struct cache_balloon *cb;
	int err = -ENOMEM;

	if (!vdev->config->get)
		return -EINVAL;
	if (the_balloon)
		return -EBUSY;
	cb = kzalloc(sizeof(*cb), GFP_KERNEL);
	if (!cb)
		return -ENOMEM;
	vdev->priv = cb;
	cb->vdev = vdev;
	cb->stopped = true;
	cb->has_ranges = virtio_has_feature(vdev, VIRTIO_CACHE_BALLOON_F_RANGES);
	cb->has_tell = virtio_has_feature(vdev, VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM);
	cb->has_lock = virtio_has_feature(vdev, VIRTIO_CACHE_BALLOON_F_LOCK);
	spin_lock_init(&cb->stop_lock);
	spin_lock_init(&cb->taken_lock);
	init_waitqueue_head(&cb->acked);
	INIT_DELAYED_WORK(&cb->work, cache_balloon_work);
	cb->slots = cb->has_tell ? max(totalram_pages() / 2, 1024UL) : ULONG_MAX;
	if (cb->has_tell)
		cb->taken = kvmalloc_array(cb->slots, sizeof(*cb->taken), GFP_KERNEL);
	cb->buffer = kmalloc_array(VIRTIO_CACHE_BALLOON_ENTRIES, 8, GFP_KERNEL);
	cb->taken_buffer = kmalloc_array(VIRTIO_CACHE_BALLOON_ENTRIES, 8, GFP_KERNEL);
	cb->wq = alloc_ordered_workqueue("cache_balloon", WQ_FREEZABLE);
	if ((cb->has_tell && !cb->taken) || !cb->buffer || !cb->taken_buffer || !cb->wq)
		goto fail;
	cb->inode = alloc_anon_inode(cache_balloon_mnt->mnt_sb);
	if (IS_ERR(cb->inode)) {
		err = PTR_ERR(cb->inode);
		cb->inode = NULL;
		goto fail;
	}
	cb->inode->i_mapping->a_ops = &cache_balloon_aops;
	mapping_set_gfp_mask(cb->inode->i_mapping, GFP_HIGHUSER_MOVABLE);
	mapping_set_large_folios(cb->inode->i_mapping);
	err = find_queues(cb);
	if (err)
		goto fail;
	the_balloon = cb;
	start_balloon(cb);
	return 0;

fail:
	free_balloon(cb);
	return err;
}

static void cache_balloon_remove(struct virtio_device *vdev)
{
	struct cache_balloon *cb = vdev->priv;

	halt_balloon(cb);
	/* A free_folio that has let go of the device may have yet to return. */
	synchronize_rcu();
	the_balloon = NULL;
	free_balloon(cb);
}

#ifdef CONFIG_PM_SLEEP
static int cache_balloon_freeze(struct virtio_device *vdev)
{
	halt_balloon(vdev->priv);
	return 0;
}

static int cache_balloon_restore(struct virtio_device *vdev)
{
	struct cache_balloon *cb = vdev->priv;
	int err = find_queues(cb);

	if (!err)
		start_balloon(cb);
	return err;
}
#endif

static const struct virtio_device_id id_table[] = {
	{ VIRTIO_ID_CACHE_BALLOON, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, id_table);

static const unsigned int features[] = {
	VIRTIO_CACHE_BALLOON_F_RANGES,
	VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM,
	VIRTIO_CACHE_BALLOON_F_LOCK,
};

static struct virtio_driver cache_balloon_driver = {
	.feature_table = features,
	.feature_table_size = ARRAY_SIZE(features),
	.driver.name = KBUILD_MODNAME,
	.id_table = id_table,
	.probe = cache_balloon_probe,
	.remove = cache_balloon_remove,
	.config_changed = cache_balloon_changed,
#ifdef CONFIG_PM_SLEEP
	.freeze = cache_balloon_freeze,
	.restore = cache_balloon_restore,
#endif
};

static int cache_balloon_init_fs_context(struct fs_context *fc)
{
	return init_pseudo(fc, CACHE_BALLOON_MAGIC) ? 0 : -ENOMEM;
}

/* Without an owner: its only mount is the module's own, and would keep it loaded for ever. */
static struct file_system_type cache_balloon_fs = {
	.name = "cache-balloon",
	.init_fs_context = cache_balloon_init_fs_context,
	.kill_sb = kill_anon_super,
};

static int __init cache_balloon_init(void)
{
	int err;

	cache_balloon_mnt = kern_mount(&cache_balloon_fs);
	if (IS_ERR(cache_balloon_mnt))
		return PTR_ERR(cache_balloon_mnt);
	err = register_virtio_driver(&cache_balloon_driver);
	if (err)
		kern_unmount(cache_balloon_mnt);
	return err;
}
module_init(cache_balloon_init);

static void __exit cache_balloon_exit(void)
{
	unregister_virtio_driver(&cache_balloon_driver);
	kern_unmount(cache_balloon_mnt);
}
module_exit(cache_balloon_exit);

MODULE_DESCRIPTION("Memory balloon in the page cache");
MODULE_LICENSE("GPL");
