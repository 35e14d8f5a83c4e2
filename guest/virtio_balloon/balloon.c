// SPDX-License-Identifier: GPL-2.0
/*
 * A memory balloon with both limits (docs/cache-balloon.md): the traditional one of
 * virtio 1.3, section 5.5, which the host sizes, and on the same device the one in
 * the page cache, which sizes itself below a limit. Also the device of 2012, which
 * has the latter alone.
 *
 * The traditional balloon holds chunks of 2 MiB, which are named by one entry each,
 * and single pages where it wants less or where no chunk is free. Single pages can
 * be migrated. A chunk is never movable and is no obstacle to compaction either: it
 * comes from zones and page blocks of memory that cannot move.
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/oom.h>
#include <linux/page_reporting.h>
#include <linux/swap.h>
#include <linux/version.h>
#include <linux/virtio.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/vmstat.h>
#include <linux/workqueue.h>
#ifdef HAVE_BALLOON_H
#include <linux/balloon.h>
#define MIGRATES IS_ENABLED(CONFIG_BALLOON_MIGRATION)
/* The kernel moves a page from list to list and counts it; the driver but tells the host. */
#define KERNEL_KEEPS_BOOKS 1
#else
#include <linux/balloon_compaction.h>
#define MIGRATES IS_ENABLED(CONFIG_BALLOON_COMPACTION)
#define KERNEL_KEEPS_BOOKS 0
#endif

#include "page_cache.h"

/* A chunk is of 2 MiB, or of a single page where that is larger. */
#define CHUNK_ORDER (PAGE_SHIFT < 21 ? 21 - PAGE_SHIFT : 0)
#define CHUNK_PAGES BIT(CHUNK_ORDER)
/* What the guest gets back when it is about to kill a process for memory. */
#define OOM_PAGES max(CHUNK_PAGES, BIT(20 - min(20, PAGE_SHIFT)))
#define TRY_AGAIN_MS 200
/*
 * Where no chunk is free, one may be after so many pages more: free page reporting
 * has them now and then.
 */
#define SKIPPED 8
/* While the host discards those, the guest takes the next ones. */
#define CHUNKS_AT_ONCE 32
/* Statistics: all tags of virtio 1.3. */
#define MAX_STATS 16

static bool chunks = true;
module_param(chunks, bool, 0644);
MODULE_PARM_DESC(chunks, "Take chunks of 2 MiB where the host knows ranges");

/* In debugfs: a file for each device. */
static struct dentry *views;

enum { INFLATEQ, DEFLATEQ, STATSQ, HINTQ, REPORTINGQ, CACHEQ, RECLAIMQ, QUEUES };

struct balloon {
	struct virtio_device *vdev;
	/* Those that the device lacks are NULL. */
	struct virtqueue *vqs[QUEUES];
	wait_queue_head_t acked;
	bool ranges;
	bool on_oom;
	/* NULL: there is none. */
	struct cache_balloon *cache;

	struct workqueue_struct *wq;
	struct delayed_work size_work;
	struct work_struct stats_work;
	/* Protects `stopped` against work that is queued from elsewhere. */
	spinlock_t stop_lock;
	bool stopped;

	/* Of the two queues, their buffer and all pages. */
	struct mutex lock;
	void *buffer;
	/* Single pages; the lists are the kernel's. */
	struct balloon_dev_info single;
	struct list_head whole;
	unsigned long nr_single;
	unsigned long nr_whole;
	unsigned long wanted;
	struct standing standing;
	struct dentry *view;

	struct virtio_balloon_stat stats[MAX_STATS];
	struct notifier_block oom_block;
	struct page_reporting_dev_info reporting;
	bool reports;
	/* Since when the host has a report; 0: it has none. */
	unsigned long reported;
};

static void acked(struct virtqueue *vq)
{
	struct balloon *b = vq->vdev->priv;

	wake_up(&b->acked);
}

static unsigned long held(struct balloon *b)
{
	return READ_ONCE(b->nr_single) + READ_ONCE(b->nr_whole) * CHUNK_PAGES;
}

/* Entries that a page, or with ranges a chunk, takes up in a buffer. */
static unsigned int entries_of(struct balloon *b)
{
	return b->ranges ? 1 : ENTRIES_PER_PAGE;
}

/* A guest without DEFLATE_ON_OOM does not count its balloon as memory. */
static void count_managed(struct balloon *b, struct page *page, long pages)
{
	if (!b->on_oom)
		adjust_managed_page_count(page, pages);
}

/* The same for a single page, of which a newer kernel takes care. */
static void count_single(struct balloon *b, struct page *page, long pages)
{
	if (!KERNEL_KEEPS_BOOKS)
		count_managed(b, page, pages);
}

static void count_balloon(struct page *page, long pages)
{
#if KERNEL_KEEPS_BOOKS
	mod_node_page_state(page_pgdat(page), NR_BALLOON_PAGES, pages);
#endif
}

/* Dumps and the like leave the pages of a chunk alone. */
static void mark_chunk(struct page *page)
{
	unsigned int n;

	for (n = 0; n < CHUNK_PAGES; n++)
		__SetPageOffline(page + n);
}

static void unmark_chunk(struct page *page)
{
	unsigned int n;

	for (n = 0; n < CHUNK_PAGES; n++)
		__ClearPageOffline(page + n);
}

/* Nobody waits for a chunk, and nothing is moved or written out for it. */
static struct page *take_chunk(void)
{
	const gfp_t gfp = (GFP_HIGHUSER | __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN) &
			  ~__GFP_RECLAIM;

	return alloc_pages(gfp, CHUNK_ORDER);
}

/* Needs the lock: sends the buffer's first entries. */
static int send(struct balloon *b, unsigned int queue, unsigned int entries)
{
	return send_standing(&b->standing, b->vqs[queue], &b->acked, b->buffer, entries, b->ranges);
}

/* Needs the lock: names all pages of the lists. */
static unsigned int name_pages(struct balloon *b, struct list_head *whole, struct list_head *single)
{
	struct page *page;
	unsigned int n = 0;

	list_for_each_entry(page, whole, lru)
		n = put_entry(b->ranges, b->buffer, n, page_to_pfn(page), CHUNK_ORDER);
	list_for_each_entry(page, single, lru)
		n = put_entry(b->ranges, b->buffer, n, page_to_pfn(page), 0);
	return n;
}

static void free_chunks(struct balloon *b, struct list_head *whole)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, whole, lru) {
		list_del(&page->lru);
		__free_pages(page, CHUNK_ORDER);
	}
}

static void free_singles(struct list_head *single)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, single, lru) {
		list_del(&page->lru);
		put_page(page);
	}
}

/* Needs the lock: the host has the pages of the lists from now on. */
static void keep(struct balloon *b, struct list_head *whole, struct list_head *single)
{
	struct page *page;

	list_for_each_entry(page, whole, lru) {
		mark_chunk(page);
		count_managed(b, page, -(long)CHUNK_PAGES);
		count_balloon(page, CHUNK_PAGES);
		WRITE_ONCE(b->nr_whole, b->nr_whole + 1);
	}
	list_splice(whole, &b->whole);
	list_for_each_entry(page, single, lru)
		count_single(b, page, -1);
	WRITE_ONCE(b->nr_single, b->nr_single + balloon_page_list_enqueue(&b->single, single));
}

/* Gives the host a buffer of pages, at most `most`. Returns how many, or an error of the queue. */
static long inflate(struct balloon *b, unsigned long most)
{
	unsigned int room = BUFFER_ENTRIES / entries_of(b);
	/* Single pages to be taken before a chunk is tried again; 0: it is tried now. */
	unsigned int skip = b->ranges && READ_ONCE(chunks) ? 0 : UINT_MAX;
	unsigned long taken = 0;
	LIST_HEAD(single);
	LIST_HEAD(whole);
	int err;

	for (; room && taken < min(most, CHUNKS_AT_ONCE * CHUNK_PAGES); room--) {
		struct page *page = NULL;

		if (!skip && most - taken >= CHUNK_PAGES) {
			page = take_chunk();
			if (!page)
				skip = SKIPPED;
		}
		if (page) {
			list_add_tail(&page->lru, &whole);
			taken += CHUNK_PAGES;
			continue;
		}
		page = balloon_page_alloc();
		if (!page)
			break;
		list_add_tail(&page->lru, &single);
		taken++;
		if (skip)
			skip--;
	}
	if (!taken)
		return 0;
	mutex_lock(&b->lock);
	err = send(b, INFLATEQ, name_pages(b, &whole, &single));
	if (!err)
		keep(b, &whole, &single);
	mutex_unlock(&b->lock);
	if (err) {
		free_chunks(b, &whole);
		free_singles(&single);
	}
	return err ? err : taken;
}

/* Needs the lock: a chunk becomes single pages. */
static void split_chunk(struct balloon *b)
{
	struct page *page = list_first_entry(&b->whole, struct page, lru);
	unsigned int n;

	list_del(&page->lru);
	unmark_chunk(page);
	split_page(page, CHUNK_ORDER);
	count_balloon(page, -(long)CHUNK_PAGES);
	if (KERNEL_KEEPS_BOOKS)
		count_managed(b, page, CHUNK_PAGES);
	for (n = 0; n < CHUNK_PAGES; n++)
		balloon_page_enqueue(&b->single, page + n);
	WRITE_ONCE(b->nr_whole, b->nr_whole - 1);
	WRITE_ONCE(b->nr_single, b->nr_single + CHUNK_PAGES);
}

/* Needs the lock: takes out of the balloon what a buffer can name. Returns how many pages. */
static unsigned long pick(struct balloon *b, unsigned long most, struct list_head *whole,
			  struct list_head *single)
{
	unsigned int room = BUFFER_ENTRIES / entries_of(b);
	unsigned long picked = 0;
	struct page *page;

	for (; room && b->nr_whole && most - picked >= CHUNK_PAGES; room--) {
		page = list_first_entry(&b->whole, struct page, lru);
		list_move_tail(&page->lru, whole);
		WRITE_ONCE(b->nr_whole, b->nr_whole - 1);
		picked += CHUNK_PAGES;
	}
	if (picked || !room)
		return picked;
	if (!b->nr_single && b->nr_whole)
		split_chunk(b);
	picked = balloon_page_list_dequeue(&b->single, single, min_t(unsigned long, most, room));
	WRITE_ONCE(b->nr_single, b->nr_single - picked);
	return picked;
}

/* Takes a buffer of pages back, at most `most`: the host is told first. Returns how many. */
static unsigned long deflate(struct balloon *b, unsigned long most)
{
	unsigned long picked;
	struct page *page;
	LIST_HEAD(single);
	LIST_HEAD(whole);

	mutex_lock(&b->lock);
	picked = pick(b, most, &whole, &single);
	/* A device that is gone wants nothing to be told any more. */
	if (picked)
		send(b, DEFLATEQ, name_pages(b, &whole, &single));
	list_for_each_entry(page, &whole, lru) {
		unmark_chunk(page);
		count_managed(b, page, CHUNK_PAGES);
		count_balloon(page, -(long)CHUNK_PAGES);
	}
	list_for_each_entry(page, &single, lru)
		count_single(b, page, 1);
	mutex_unlock(&b->lock);
	free_chunks(b, &whole);
	free_singles(&single);
	return picked;
}

static void write_actual(struct balloon *b)
{
	u32 actual = to_wire(held(b));

	virtio_cwrite_le(b->vdev, struct virtio_balloon_config, actual, &actual);
}

static unsigned long target(struct balloon *b)
{
	u32 pages;

	virtio_cread_le(b->vdev, struct virtio_balloon_config, num_pages, &pages);
	return DIV_ROUND_UP((unsigned long)pages, ENTRIES_PER_PAGE);
}

static void resize(struct balloon *b, unsigned int delay_ms)
{
	unsigned long flags;

	spin_lock_irqsave(&b->stop_lock, flags);
	if (!b->stopped)
		mod_delayed_work(b->wq, &b->size_work, msecs_to_jiffies(delay_ms));
	spin_unlock_irqrestore(&b->stop_lock, flags);
}

static void size_work(struct work_struct *work)
{
	struct balloon *b = container_of(to_delayed_work(work), struct balloon, size_work);
	unsigned long wanted = target(b), has = held(b);
	const char *stuck = wanted > has ? "the guest has no free memory" :
					   "its pages are being moved";
	long moved;

	WRITE_ONCE(b->wanted, wanted);
	if (wanted == has) {
		stands(&b->standing, "has reached its target");
		return;
	}
	/* Each try of one that is stuck does not begin its time anew. */
	if (READ_ONCE(b->standing.now) != stuck)
		stands(&b->standing, wanted > has ? "grows" : "shrinks");
	moved = wanted > has ? inflate(b, wanted - has) : deflate(b, has - wanted);
	if (moved < 0) {
		stands(&b->standing, "the device is broken");
		return;
	}
	stands(&b->standing, !moved ? stuck : wanted > has ? "grows" : "shrinks");
	write_actual(b);
	resize(b, moved ? 0 : TRY_AGAIN_MS);
}

#if MIGRATES
/* Compaction moves a single page: the new one goes in before the old one comes out. */
static int migrate(struct balloon_dev_info *info, struct page *new, struct page *old,
		   enum migrate_mode mode)
{
	struct balloon *b = container_of(info, struct balloon, single);
	int err;

	if (!mutex_trylock(&b->lock))
		return -EAGAIN;
	err = send(b, INFLATEQ, put_entry(b->ranges, b->buffer, 0, page_to_pfn(new), 0));
	if (err) {
		mutex_unlock(&b->lock);
		return -EAGAIN;
	}
#if !KERNEL_KEEPS_BOOKS
	get_page(new);
	if (page_zone(new) != page_zone(old)) {
		count_single(b, old, 1);
		count_single(b, new, -1);
	}
	spin_lock_irq(&info->pages_lock);
	balloon_page_insert(info, new);
	info->isolated_pages--;
	__count_vm_event(BALLOON_MIGRATE);
	spin_unlock_irq(&info->pages_lock);
	/* It is on no list: it was isolated. */
	__ClearPageMovable(old);
	set_page_private(old, 0);
	__ClearPageOffline(old);
#endif
	send(b, DEFLATEQ, put_entry(b->ranges, b->buffer, 0, page_to_pfn(old), 0));
	mutex_unlock(&b->lock);
#if !KERNEL_KEEPS_BOOKS
	put_page(old);
#endif
	return 0;
}
#endif

static int gives_on_oom(struct notifier_block *block, unsigned long unused, void *freed)
{
	struct balloon *b = container_of(block, struct balloon, oom_block);

	*(unsigned long *)freed += deflate(b, OOM_PAGES);
	write_actual(b);
	return NOTIFY_OK;
}

static void put_stat(struct balloon *b, unsigned int *n, u16 tag, u64 value)
{
	b->stats[*n].tag = cpu_to_virtio16(b->vdev, tag);
	b->stats[*n].val = cpu_to_virtio64(b->vdev, value);
	++*n;
}

static unsigned int fill_stats(struct balloon *b)
{
	unsigned long events[NR_VM_EVENT_ITEMS], stalls = 0;
	struct sysinfo info;
	unsigned int n = 0;
	int zone;

	all_vm_events(events);
	si_meminfo(&info);
	for (zone = 0; zone < MAX_NR_ZONES; zone++)
		stalls += events[ALLOCSTALL_NORMAL - ZONE_NORMAL + zone];
#ifdef CONFIG_SWAP
	put_stat(b, &n, 0, (u64)events[PSWPIN] << PAGE_SHIFT);
	put_stat(b, &n, 1, (u64)events[PSWPOUT] << PAGE_SHIFT);
#endif
	put_stat(b, &n, 2, events[PGMAJFAULT]);
	put_stat(b, &n, 3, events[PGFAULT]);
	put_stat(b, &n, 4, (u64)info.freeram * info.mem_unit);
	put_stat(b, &n, 5, (u64)info.totalram * info.mem_unit);
	put_stat(b, &n, 6, (u64)si_mem_available() << PAGE_SHIFT);
	put_stat(b, &n, 7, (u64)global_node_page_state(NR_FILE_PAGES) << PAGE_SHIFT);
#ifdef CONFIG_HUGETLB_PAGE
	put_stat(b, &n, 8, events[HTLB_BUDDY_PGALLOC]);
	put_stat(b, &n, 9, events[HTLB_BUDDY_PGALLOC_FAIL]);
#endif
	put_stat(b, &n, 10, events[OOM_KILL]);
	put_stat(b, &n, 11, stalls);
	put_stat(b, &n, 12, (u64)events[PGSCAN_KSWAPD] << PAGE_SHIFT);
	put_stat(b, &n, 13, (u64)events[PGSCAN_DIRECT] << PAGE_SHIFT);
	put_stat(b, &n, 14, (u64)events[PGSTEAL_KSWAPD] << PAGE_SHIFT);
	put_stat(b, &n, 15, (u64)events[PGSTEAL_DIRECT] << PAGE_SHIFT);
	return n;
}

/* The host keeps the buffer until it wants other statistics. */
static void send_stats(struct balloon *b)
{
	struct scatterlist sg;

	sg_init_one(&sg, b->stats, fill_stats(b) * sizeof(b->stats[0]));
	if (!virtqueue_add_outbuf(b->vqs[STATSQ], &sg, 1, b, GFP_KERNEL))
		virtqueue_kick(b->vqs[STATSQ]);
}

static void stats_work(struct work_struct *work)
{
	struct balloon *b = container_of(work, struct balloon, stats_work);
	unsigned int unused;

	if (virtqueue_get_buf(b->vqs[STATSQ], &unused))
		send_stats(b);
}

static void wants_stats(struct virtqueue *vq)
{
	struct balloon *b = vq->vdev->priv;
	unsigned long flags;

	spin_lock_irqsave(&b->stop_lock, flags);
	if (!b->stopped)
		queue_work(b->wq, &b->stats_work);
	spin_unlock_irqrestore(&b->stop_lock, flags);
}

static int report(struct page_reporting_dev_info *info, struct scatterlist *sg,
		  unsigned int entries)
{
	struct balloon *b = container_of(info, struct balloon, reporting);
	struct virtqueue *vq = b->vqs[REPORTINGQ];
	int err = virtqueue_add_inbuf(vq, sg, entries, b, GFP_NOWAIT | __GFP_NOWARN);

	if (err)
		return err;
	WRITE_ONCE(b->reported, jiffies | 1);
	err = await_host(vq, &b->acked);
	WRITE_ONCE(b->reported, 0);
	return err;
}

static void changed(struct virtio_device *vdev)
{
	struct balloon *b = vdev->priv;

	if (b->vqs[INFLATEQ])
		resize(b, 0);
	if (b->cache)
		cache_balloon_changed(b->cache);
}

static const char *const names[QUEUES] = {
	"inflate", "deflate", "stats", "hint", "reporting", "cache", "reclaim"
};

static bool has_queue(struct balloon *b, unsigned int queue)
{
	static const int bits[QUEUES] = {
		-1, -1, VIRTIO_BALLOON_F_STATS_VQ, VIRTIO_BALLOON_F_FREE_PAGE_HINT,
		VIRTIO_BALLOON_F_REPORTING, VIRTIO_CACHE_BALLOON_F_RANGES,
		VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM,
	};
	bool alone = b->vdev->id.device == VIRTIO_ID_CACHE_BALLOON;

	if (queue >= CACHEQ && !b->cache)
		return false;
	if (alone)
		return queue == CACHEQ ||
		       (queue == RECLAIMQ && virtio_has_feature(b->vdev, bits[queue]));
	return bits[queue] < 0 || virtio_has_feature(b->vdev, bits[queue]);
}

/* Queues have their numbers in this order, without those of features that there are not. */
static int find_queues(struct balloon *b)
{
	struct virtqueue *found[QUEUES];
	unsigned int at[QUEUES], queue, n = 0;
	int err;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
	struct virtqueue_info queues[QUEUES] = {};
#else
	vq_callback_t *callbacks[QUEUES];
	const char *wanted[QUEUES];
#endif

	memset(b->vqs, 0, sizeof(b->vqs));
	for (queue = 0; queue < QUEUES; queue++) {
		vq_callback_t *callback = queue == STATSQ ? wants_stats :
					  queue >= CACHEQ ? cache_balloon_acked : acked;

		if (!has_queue(b, queue))
			continue;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
		queues[n].name = names[queue];
		queues[n].callback = callback;
#else
		wanted[n] = names[queue];
		callbacks[n] = callback;
#endif
		at[n++] = queue;
	}
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
	err = virtio_find_vqs(b->vdev, n, found, queues, NULL);
#else
	err = virtio_find_vqs(b->vdev, n, found, callbacks, wanted, NULL);
#endif
	if (err)
		return err;
	while (n--)
		b->vqs[at[n]] = found[n];
	return 0;
}

static int view_show(struct seq_file *file, void *unused)
{
	struct balloon *b = file->private;

	if (b->vqs[INFLATEQ]) {
		show_pages(file, "target", READ_ONCE(b->wanted));
		show_pages(file, "held in chunks", READ_ONCE(b->nr_whole) * CHUNK_PAGES);
		show_pages(file, "held in pages", READ_ONCE(b->nr_single));
		show_standing(file, "balloon", &b->standing);
		show_wait(file, "reporting", READ_ONCE(b->reported));
	}
	if (b->cache)
		cache_balloon_show(file, b->cache);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(view);

static void start(struct balloon *b)
{
	stands(&b->standing, "starts");
	if (b->vqs[INFLATEQ] && virtio_has_feature(b->vdev, VIRTIO_BALLOON_F_PAGE_POISON)) {
		u32 poison = 0;

		if (!want_init_on_free())
			memset(&poison, PAGE_POISON, sizeof(poison));
		virtio_cwrite_le(b->vdev, struct virtio_balloon_config, poison_val, &poison);
	}
	virtio_device_ready(b->vdev);
	if (b->vqs[STATSQ])
		send_stats(b);
	spin_lock_irq(&b->stop_lock);
	b->stopped = false;
	/* The host may have asked for other statistics before anybody listened. */
	if (b->vqs[STATSQ])
		queue_work(b->wq, &b->stats_work);
	spin_unlock_irq(&b->stop_lock);
	if (b->vqs[REPORTINGQ]) {
		int err = page_reporting_register(&b->reporting);

		b->reports = !err;
		if (err)
			dev_warn(&b->vdev->dev, "free pages are not reported: %d\n", err);
	}
	if (b->on_oom)
		register_oom_notifier(&b->oom_block);
	if (b->cache)
		cache_balloon_start(b->cache, b->vqs[CACHEQ], b->vqs[RECLAIMQ]);
	if (b->vqs[INFLATEQ])
		resize(b, 0);
}

/* Afterwards both balloons are empty and the device is reset. */
static void stop(struct balloon *b)
{
	if (b->reports)
		page_reporting_unregister(&b->reporting);
	b->reports = false;
	if (b->on_oom)
		unregister_oom_notifier(&b->oom_block);
	spin_lock_irq(&b->stop_lock);
	b->stopped = true;
	spin_unlock_irq(&b->stop_lock);
	cancel_delayed_work_sync(&b->size_work);
	cancel_work_sync(&b->stats_work);
	if (b->cache)
		cache_balloon_halt(b->cache);
	while (held(b))
		/* The rest is being migrated. */
		if (!deflate(b, held(b)))
			usleep_range(1000, 2000);
	if (b->vqs[INFLATEQ])
		write_actual(b);
	virtio_reset_device(b->vdev);
	b->vdev->config->del_vqs(b->vdev);
}

static void free_balloon(struct balloon *b)
{
	debugfs_remove(b->view);
	if (b->cache)
		cache_balloon_destroy(b->cache);
	if (b->wq)
		destroy_workqueue(b->wq);
	kfree(b->buffer);
	kfree(b);
}

static int make_cache(struct balloon *b)
{
	bool alone = b->vdev->id.device == VIRTIO_ID_CACHE_BALLOON;
	struct cache_balloon *cache;

	if (!alone && !b->ranges)
		return 0;
	cache = cache_balloon_create(b->vdev, alone ? 0 : sizeof(struct virtio_balloon_config));
	if (!IS_ERR(cache))
		b->cache = cache;
	/* A guest with both devices has the one that was there first. */
	return IS_ERR(cache) && (alone || PTR_ERR(cache) != -EBUSY) ? PTR_ERR(cache) : 0;
}

static int find_what_there_is(struct balloon *b)
{
	int err = find_queues(b);

	if (!err || err == -ENOMEM || !b->cache || b->vdev->id.device == VIRTIO_ID_CACHE_BALLOON)
		return err;
	/* The VMM has too few queues. */
	cache_balloon_destroy(b->cache);
	b->cache = NULL;
	return find_queues(b);
}

static int probe(struct virtio_device *vdev)
{
	struct balloon *b;
	int err = -ENOMEM;

	if (!vdev->config->get)
		return -EINVAL;
	b = kzalloc(sizeof(*b), GFP_KERNEL);
	if (!b)
		return -ENOMEM;
	vdev->priv = b;
	b->vdev = vdev;
	b->stopped = true;
	b->ranges = virtio_has_feature(vdev, VIRTIO_CACHE_BALLOON_F_RANGES);
	b->on_oom = vdev->id.device == VIRTIO_ID_BALLOON &&
		    virtio_has_feature(vdev, VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
	init_waitqueue_head(&b->acked);
	spin_lock_init(&b->stop_lock);
	mutex_init(&b->lock);
	INIT_LIST_HEAD(&b->whole);
	INIT_DELAYED_WORK(&b->size_work, size_work);
	INIT_WORK(&b->stats_work, stats_work);
	balloon_devinfo_init(&b->single);
#if MIGRATES
	b->single.migratepage = migrate;
#endif
#if KERNEL_KEEPS_BOOKS
	b->single.adjust_managed_page_count = !b->on_oom;
#endif
	b->oom_block.notifier_call = gives_on_oom;
	b->reporting.report = report;
	b->reporting.order = CHUNK_ORDER;
	b->buffer = kmalloc_array(BUFFER_ENTRIES, 8, GFP_KERNEL);
	b->wq = alloc_workqueue("virtio_balloon", WQ_FREEZABLE | WQ_UNBOUND, 0);
	if (!b->buffer || !b->wq)
		goto fail;
	err = make_cache(b);
	if (!err)
		err = find_what_there_is(b);
	if (err)
		goto fail;
	start(b);
	b->view = debugfs_create_file(dev_name(&vdev->dev), 0400, views, b, &view_fops);
	return 0;

fail:
	free_balloon(b);
	return err;
}

static void remove(struct virtio_device *vdev)
{
	struct balloon *b = vdev->priv;

	stop(b);
	free_balloon(b);
}

/*
 * Before the features are settled: those that the device or the guest cannot live up
 * to are left out.
 */
static int validate(struct virtio_device *vdev)
{
	bool poisons = want_init_on_free() || page_poisoning_enabled_static();
	__le32 value = 0;

	if (vdev->id.device != VIRTIO_ID_BALLOON)
		return 0;
	/* The contents of free pages are the guest's where nobody tells the host what they are. */
	if (!poisons)
		__virtio_clear_bit(vdev, VIRTIO_BALLOON_F_PAGE_POISON);
	else if (!virtio_has_feature(vdev, VIRTIO_BALLOON_F_PAGE_POISON))
		__virtio_clear_bit(vdev, VIRTIO_BALLOON_F_REPORTING);
	__virtio_clear_bit(vdev, VIRTIO_F_ACCESS_PLATFORM);
	if (virtio_has_feature(vdev, VIRTIO_CACHE_BALLOON_F_RANGES))
		vdev->config->get(vdev, sizeof(struct virtio_balloon_config) +
				  offsetof(struct virtio_cache_balloon_config, lock), &value,
				  sizeof(value));
	/* All ones: the VMM has a smaller config space, and fewer queues. */
	if (value == cpu_to_le32(U32_MAX) ||
	    !virtio_has_feature(vdev, VIRTIO_CACHE_BALLOON_F_RANGES)) {
		__virtio_clear_bit(vdev, VIRTIO_CACHE_BALLOON_F_RANGES);
		__virtio_clear_bit(vdev, VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM);
		__virtio_clear_bit(vdev, VIRTIO_CACHE_BALLOON_F_LOCK);
	}
	return 0;
}

#ifdef CONFIG_PM_SLEEP
static int freeze(struct virtio_device *vdev)
{
	stop(vdev->priv);
	return 0;
}

static int restore(struct virtio_device *vdev)
{
	int err = find_queues(vdev->priv);

	if (!err)
		start(vdev->priv);
	return err;
}
#endif

static const struct virtio_device_id id_table[] = {
	{ VIRTIO_ID_BALLOON, VIRTIO_DEV_ANY_ID },
	{ VIRTIO_ID_CACHE_BALLOON, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, id_table);

static const unsigned int features[] = {
	VIRTIO_BALLOON_F_MUST_TELL_HOST,
	VIRTIO_BALLOON_F_STATS_VQ,
	VIRTIO_BALLOON_F_DEFLATE_ON_OOM,
	/* For the number of the queue that follows: nothing is ever hinted. */
	VIRTIO_BALLOON_F_FREE_PAGE_HINT,
	VIRTIO_BALLOON_F_PAGE_POISON,
	VIRTIO_BALLOON_F_REPORTING,
	VIRTIO_CACHE_BALLOON_F_RANGES,
	VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM,
	VIRTIO_CACHE_BALLOON_F_LOCK,
};

static struct virtio_driver balloon_driver = {
	.feature_table = features,
	.feature_table_size = ARRAY_SIZE(features),
	.driver.name = KBUILD_MODNAME,
	.id_table = id_table,
	.validate = validate,
	.probe = probe,
	.remove = remove,
	.config_changed = changed,
#ifdef CONFIG_PM_SLEEP
	.freeze = freeze,
	.restore = restore,
#endif
};

static int __init balloon_init(void)
{
	int err = cache_balloon_init();

	if (err)
		return err;
	views = debugfs_create_dir(KBUILD_MODNAME, NULL);
	err = register_virtio_driver(&balloon_driver);
	if (err) {
		debugfs_remove(views);
		cache_balloon_exit();
	}
	return err;
}
module_init(balloon_init);

static void __exit balloon_exit(void)
{
	unregister_virtio_driver(&balloon_driver);
	debugfs_remove(views);
	cache_balloon_exit();
}
module_exit(balloon_exit);

MODULE_DESCRIPTION("Memory balloon with a lower and an upper limit");
MODULE_LICENSE("GPL");
